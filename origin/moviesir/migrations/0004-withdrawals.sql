-- Viewers who have left, for 30 days: enough to tell them so when they show their password, and nothing else.
create table b2c.withdrawals (
  email_hash text primary key,
  password_hash text not null,
  expires_at timestamptz not null
);
create index withdrawals_by_age on b2c.withdrawals (expires_at);
