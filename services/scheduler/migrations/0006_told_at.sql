-- When the latest that was heard of a charge was said by payments: what is older changes nothing.
ALTER TABLE job ADD COLUMN told_at timestamptz;
