-- What a company never wants recommended. The filter_value of ADULT is empty: it has none.
create table b2b.content_rules (
  rule_id integer generated always as identity primary key,
  company_id integer not null references b2b.companies (company_id) on delete cascade,
  filter_type text not null check (filter_type in ('ID', 'GENRE', 'KEYWORD', 'ADULT', 'MIN_RATING')),
  filter_value text not null check (char_length(filter_value) <= 100),
  description text not null check (char_length(description) <= 500),
  created_at timestamptz not null default now(),
  unique (company_id, filter_type, filter_value)
);

-- What was shown to the users of a company's own, so that it is not shown again at once.
create table b2b.guest_sessions (
  company_id integer not null references b2b.companies (company_id) on delete cascade,
  guest_hash text not null,
  shown_movie_ids integer[] not null,
  expires_at timestamptz not null,
  primary key (company_id, guest_hash)
);
create index guest_sessions_by_age on b2b.guest_sessions (expires_at);
