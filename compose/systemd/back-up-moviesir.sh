#!/bin/sh
# back-up-moviesir.sh FOLDER: a dump of MovieSir's database, and none older than seven days. Where the database is, libpq
# learns from its own variables (PGSERVICE). A dump that was not made whole, or cannot be read, leaves nothing behind.
set -eu
umask 077
file="$1/moviesir_$(date -u +%Y%m%d_%H%M%S).dump"
trap 'rm -f "$file.part"' EXIT
pg_dump --format=custom --file="$file.part"
pg_restore --list "$file.part" > /dev/null
mv "$file.part" "$file"
find "$1" -name 'moviesir_*.dump' -mtime +7 -delete
