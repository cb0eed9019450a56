-- Keys begin with the user, so a row can only ever refer to rows of its own user, and two phones that make the
-- same id do not meet. `change` numbers a user's changes in commit order: the counter in users is raised under
-- that row's lock, in the transaction that writes the rows.

create table homework_helper.users (
  id integer generated always as identity primary key,
  username text not null check (char_length(username) between 1 and 50),
  username_key text not null unique,
  email text not null check (char_length(email) <= 100),
  email_key text not null unique,
  password_hash text not null,
  is_active boolean not null default true,
  change bigint not null default 0,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table homework_helper.sessions (
  user_id integer not null references homework_helper.users (id),
  id uuid not null default gen_random_uuid(),
  process_id integer,
  game_name text check (char_length(game_name) <= 100),
  start_ts timestamptz not null,
  end_ts timestamptz check (end_ts >= start_ts),
  duration integer check (duration >= 0),
  content_hash text not null,
  change bigint not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (user_id, id),
  unique (user_id, change)
);
create index sessions_newest on homework_helper.sessions (user_id, start_ts desc, id desc);

create table homework_helper.events (
  user_id integer not null,
  id uuid not null default gen_random_uuid(),
  session_id uuid not null,
  event_type text not null check (char_length(event_type) <= 50),
  resource_type text check (char_length(resource_type) <= 50),
  value jsonb,
  timestamp timestamptz not null,
  content_hash text not null,
  change bigint not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (user_id, id),
  unique (user_id, change),
  foreign key (user_id, session_id) references homework_helper.sessions (user_id, id)
);
create index events_of_session on homework_helper.events (user_id, session_id, timestamp, id);

create table homework_helper.predictions (
  user_id integer not null,
  id uuid not null default gen_random_uuid(),
  session_id uuid not null,
  predicted_action text not null check (char_length(predicted_action) <= 100),
  predicted_value integer,
  confidence double precision check (confidence between 0 and 1),
  content_hash text not null,
  change bigint not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (user_id, id),
  unique (user_id, change),
  foreign key (user_id, session_id) references homework_helper.sessions (user_id, id)
);
create index predictions_of_session on homework_helper.predictions (user_id, session_id, created_at, id);

-- What was answered to an upload that carried an Idempotency-Key, so that a retry gets the same answer.
create table homework_helper.answers (
  user_id integer not null references homework_helper.users (id),
  key text not null,
  content_hash text not null,
  status integer not null,
  body text not null,
  created_at timestamptz not null default now(),
  primary key (user_id, key)
);
create index answers_by_age on homework_helper.answers (created_at);
