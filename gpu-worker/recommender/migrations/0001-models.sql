-- What was learned, a row per training; the newest is the one that serves. Never changed, so that going back is deleting.
create table recommender.models (
  version bigint generated always as identity primary key,
  trained_at timestamptz not null default now(),
  interactions integer not null,
  films integer not null,
  bytes bytea not null
);
