-- flags: allow-oom
-- parts: line ends
-- Removes what was set aside for a move, with the groups of these messages.
--
-- ARGV[1]  batch
-- ARGV[2]  milliseconds that the answer is remembered
-- Returns 1 when the messages are gone, now or since an earlier call, 0 when they were brought back.
local batch, done = NS .. 'move:' .. ARGV[1], NS .. 'moved:' .. ARGV[1]
if call('EXISTS', done) == 1 then
  return 1
end
local ids = call('HKEYS', batch)
if #ids == 0 then
  return 0
end
for _, text in ipairs(get_many(NS .. 'meta', ids)) do
  local m = unpack_meta(text)
  if m.group ~= '-' and m.group ~= '*' then
    call('HDEL', NS .. 'groups', m.group)
    call('HDEL', NS .. 'callbacks', m.group)
  end
end
forget(ids)
call_many('HDEL', NS .. 'why', ids)
remember_ended(ids)
call('ZREM', NS .. 'moving', ARGV[1])
call('DEL', batch)
call('SET', done, '1', 'PX', ARGV[2])
return 1
