-- flags: allow-oom
-- parts: line ends
-- Removes some of the waiting, delayed and dead messages of a queue; their groups count them.
--
-- ARGV[1]  queue
-- ARGV[2]  most messages
-- Returns how many.
local queue, room, removed = ARGV[1], tonumber(ARGV[2]), 0
for _, kind in ipairs({ 'waiting:', 'delayed:', 'dead:' }) do
  local ids = call('ZRANGE', NS .. kind .. queue, 0, room - removed - 1)
  if removed < room and #ids > 0 then
    call('ZREMRANGEBYRANK', NS .. kind .. queue, 0, #ids - 1)
    for n, text in ipairs(get_many(NS .. 'meta', ids)) do
      if text then
        drop(ids[n], unpack_meta(text))
      end
    end
    if kind == 'dead:' then
      call_many('HDEL', NS .. 'why', ids)
    end
    removed = removed + #ids
  end
end
commit()
return removed
