-- flags: allow-oom
-- parts: line
-- Pauses or resumes a queue.
--
-- ARGV[1]  pause or resume
-- ARGV[2]  queue
if ARGV[1] == 'pause' then
  call('SADD', NS .. 'paused', ARGV[2])
elseif call('SREM', NS .. 'paused', ARGV[2]) == 1 then
  to_wake[ARGV[2]] = true
end
commit()
return 1
