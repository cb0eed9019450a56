-- Companies may log in with an account at a provider; those that do so from the beginning have no password.
alter table b2b.companies alter column password_hash drop not null;

-- Known by the provider's own number for the account: addresses and names of accounts change hands.
create table b2b.company_identities (
  provider text not null check (provider in ('google', 'github')),
  subject text not null check (char_length(subject) between 1 and 255),
  company_id integer not null references b2b.companies (company_id) on delete cascade,
  created_at timestamptz not null default now(),
  primary key (provider, subject),
  unique (company_id, provider)
);
