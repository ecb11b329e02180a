-- flags: allow-oom
-- parts: line
-- Brings back what was set aside by movers that fell silent.
--
-- Returns how many messages.
local back = 0
for _, name in ipairs(call('ZRANGEBYSCORE', NS .. 'moving', '-inf', now)) do
  local rows = call('HGETALL', NS .. 'move:' .. name)
  for i = 1, #rows, 2 do
    local id, m = rows[i], get_meta(rows[i])
    local was, place = string.match(rows[i + 1], '^(%S+) (%S+)')
    m.state = was == 'dead' and 'x' or 'w'
    call('HSET', NS .. 'meta', id, pack(m))
    call('ZADD', NS .. was .. ':' .. m.queue, place, id)
    to_wake[m.queue] = true
    back = back + 1
  end
  call('DEL', NS .. 'move:' .. name)
  call('ZREM', NS .. 'moving', name)
end
commit()
return back
