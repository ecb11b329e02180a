-- flags: allow-oom
-- parts: line ends
-- Takes messages out of the dead letters: back in line as if new, or for good.
--
-- ARGV[1]  requeue or discard
-- ARGV[2...]  message ids
-- Returns how many were dead.
local found = 0
for i = 2, #ARGV do
  local id, m = ARGV[i], get_meta(ARGV[i])
  if m and m.state == 'x' then
    found = found + 1
    call('ZREM', NS .. 'dead:' .. m.queue, id)
    call('HDEL', NS .. 'why', id)
    if ARGV[1] == 'discard' then
      forget({ id })
    else
      m.attempt, m.lost, m.cancel = 0, 0, '0'
      line_up(id, m, next_order())
      call('HSET', NS .. 'meta', id, pack(m))
    end
  end
end
commit()
return found
