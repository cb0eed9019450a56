-- Vectors of texts, so that a text is embedded once per model. Needs no extension.
create table vectors.texts (
  -- SHA-256 of the model's name, a zero byte and the text
  text_key bytea primary key check (length(text_key) = 32),
  model text not null,
  -- float32, little-endian, of length 1 as a vector
  embedding bytea not null,
  made_at timestamptz not null default now()
);
create index texts_by_model on vectors.texts (model, made_at);
