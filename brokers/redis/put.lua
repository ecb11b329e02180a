-- flags:
-- parts: line
-- Stores messages with all that they had in another store, once per batch.
--
-- ARGV[1]  batch
-- ARGV[2]  milliseconds that the batch is remembered
-- ARGV[3]  header: count, then of each: id queue priority order attempt lost group time-of-death (- if none), lengths of
--          why and body
-- ARGV[4]  of each why and body
-- ARGV[5...]  triples: group, its members here, its callbacks as in enqueue.lua or an empty text
-- Returns how many were new.
local done = NS .. 'moved:' .. ARGV[1]
if call('EXISTS', done) == 1 then
  return 0
end
for i = 5, #ARGV, 3 do
  call('HSETNX', NS .. 'groups', ARGV[i], ARGV[i + 1])
  if ARGV[i + 2] ~= '' then
    call('HSETNX', NS .. 'callbacks', ARGV[i], ARGV[i + 2])
  end
end
local word, bytes = reader(ARGV[3], ARGV[4])
local new = 0
for _ = 1, tonumber(word()) do
  local m = { id = word(), queue = word(), priority = word(), order = word(), attempt = word(), lost = word() }
  m.group, m.token, m.cancel = word(), '0', '0'
  local died, why, body = word(), tonumber(word()), tonumber(word())
  why, body = bytes(why), bytes(body)
  if call('HSETNX', NS .. 'body', m.id, body) == 1 then
    if died ~= '-' then
      m.state = 'x'
      call('ZADD', NS .. 'dead:' .. m.queue, died, m.id)
      call('HSET', NS .. 'why', m.id, why)
    else
      line_up(m.id, m, tonumber(m.order), tonumber(m.order))
    end
    call('HSET', NS .. 'meta', m.id, pack(m))
    used_queues[m.queue] = true
    new = new + 1
  end
end
call('SET', done, '1', 'PX', ARGV[2])
commit()
return new
