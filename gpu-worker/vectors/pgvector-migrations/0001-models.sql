create extension if not exists vector;

-- What made vectors of films. Each has a table of its own, film_vectors.films_<model_id>, made when it is first used:
-- its vectors have one length, and an index serves one model only.
create table film_vectors.models (
  model_id integer generated always as identity primary key,
  name text not null,
  -- length of a vector; the index takes up to 4,000
  dimension integer not null check (dimension between 1 and 4000),
  unique (name, dimension)
);
