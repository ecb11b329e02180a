"""What Fanfare remembers: the database, its migrations, and all SQL but the Postgres engine's."""
