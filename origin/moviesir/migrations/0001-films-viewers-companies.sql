-- Films and what is known of them (public), people who watch (b2c), companies that call the API (b2b).
create schema if not exists b2c;
create schema if not exists b2b;

create table public.movies (
  movie_id integer primary key,
  tmdb_id integer,
  title text not null,
  runtime integer not null check (runtime > 0),
  genres text[] not null,
  tags text[] not null default '{}',
  release_date date not null,
  vote_average double precision not null check (vote_average between 0 and 10),
  vote_count integer not null check (vote_count >= 0),
  overview text not null default '',
  poster_path text,
  adult boolean not null default false
);
create index movies_by_genre on public.movies using gin (genres);
create index movies_by_runtime on public.movies (runtime);

create table public.ott_providers (
  provider_id integer primary key,
  provider_name text not null unique
);

create table public.movie_ott_map (
  movie_id integer not null references public.movies (movie_id) on delete cascade,
  provider_id integer not null references public.ott_providers (provider_id),
  link_url text not null,
  payment_type text not null check (payment_type in ('subscription', 'rent', 'buy')),
  primary key (movie_id, provider_id)
);
create index movie_ott_map_by_provider on public.movie_ott_map (provider_id);

create table b2c.users (
  user_id uuid primary key default gen_random_uuid(),
  email text not null check (char_length(email) <= 254),
  email_key text not null unique,
  nickname text not null check (char_length(nickname) between 1 and 30),
  nickname_key text not null unique,
  password_hash text not null,
  onboarding_completed_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- One row per refresh token. A family is one login: every token is exchanged for its successor once.
create table b2c.refresh_tokens (
  token_hash text primary key,
  family uuid not null,
  user_id uuid not null references b2c.users (user_id) on delete cascade,
  expires_at timestamptz not null,
  used_at timestamptz
);
create index refresh_tokens_by_family on b2c.refresh_tokens (family);
create index refresh_tokens_by_user on b2c.refresh_tokens (user_id);
create index refresh_tokens_by_age on b2c.refresh_tokens (expires_at);

create table b2c.user_ott_map (
  user_id uuid not null references b2c.users (user_id) on delete cascade,
  provider_id integer not null references public.ott_providers (provider_id),
  primary key (user_id, provider_id)
);

create table b2c.onboarding_candidates (
  mood_tag text not null,
  movie_id integer not null references public.movies (movie_id) on delete cascade,
  primary key (mood_tag, movie_id)
);

create table b2c.user_onboarding_answers (
  user_id uuid not null references b2c.users (user_id) on delete cascade,
  movie_id integer not null references public.movies (movie_id) on delete cascade,
  created_at timestamptz not null default now(),
  primary key (user_id, movie_id)
);

create table b2c.recommendation_sessions (
  session_id bigint generated always as identity primary key,
  user_id uuid not null references b2c.users (user_id) on delete cascade,
  req_genres text[] not null,
  req_runtime_max integer not null,
  req_exclude_adult boolean not null,
  tier text not null,
  recommended_movie_ids integer[] not null,
  feedback_details jsonb not null default '{}',
  created_at timestamptz not null default now()
);
create index recommendation_sessions_by_user on b2c.recommendation_sessions (user_id, session_id desc);

create table b2c.user_movie_feedback (
  feedback_id bigint generated always as identity primary key,
  user_id uuid not null references b2c.users (user_id) on delete cascade,
  movie_id integer not null references public.movies (movie_id) on delete cascade,
  session_id bigint references b2c.recommendation_sessions (session_id) on delete cascade,
  feedback_type text not null check (char_length(feedback_type) <= 30),
  created_at timestamptz not null default now()
);
create index user_movie_feedback_by_user on b2c.user_movie_feedback (user_id, feedback_type, created_at desc);
create index user_movie_feedback_by_movie on b2c.user_movie_feedback (movie_id);

create table b2c.movie_logs (
  log_id bigint generated always as identity primary key,
  user_id uuid not null references b2c.users (user_id) on delete cascade,
  movie_id integer not null references public.movies (movie_id) on delete cascade,
  action text not null check (char_length(action) <= 40),
  created_at timestamptz not null default now()
);
create index movie_logs_by_user on b2c.movie_logs (user_id, created_at desc);
create index movie_logs_by_movie on b2c.movie_logs (movie_id);

create table b2b.companies (
  company_id integer generated always as identity primary key,
  name text not null check (char_length(name) between 1 and 100),
  email text not null check (char_length(email) <= 254),
  email_key text not null unique,
  password_hash text not null,
  plan text not null default 'BASIC' check (plan in ('BASIC', 'PRO', 'ENTERPRISE')),
  is_admin boolean not null default false,
  -- Tokens issued before this second are refused: a changed password ends every login.
  tokens_valid_from timestamptz not null default date_trunc('second', now()),
  created_at timestamptz not null default now()
);

create table b2b.api_keys (
  key_id integer generated always as identity primary key,
  company_id integer not null references b2b.companies (company_id) on delete cascade,
  key_name text not null check (char_length(key_name) between 1 and 100),
  key_hash text not null unique,
  is_active boolean not null default true,
  created_at timestamptz not null default now(),
  last_used_at timestamptz
);
create index api_keys_by_company on b2b.api_keys (company_id);

create table b2b.api_logs (
  log_id bigint generated always as identity primary key,
  company_id integer not null references b2b.companies (company_id) on delete cascade,
  key_id integer references b2b.api_keys (key_id) on delete set null,
  key_name text not null,
  request_id text not null,
  endpoint text not null,
  method text not null,
  status_code integer not null,
  error_code text,
  latency_ms double precision not null,
  created_at timestamptz not null default now()
);
create index api_logs_by_company on b2b.api_logs (company_id, log_id desc);
create index api_logs_by_age on b2b.api_logs (company_id, created_at);

-- What keeps short-lived values where no Redis is configured.
create table moviesir.store (
  key text primary key,
  value text,
  count integer not null default 0,
  expires_at timestamptz not null
);
create index store_by_age on moviesir.store (expires_at);
