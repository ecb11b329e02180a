-- flags: allow-oom
-- parts: line ends
-- Hands leased messages back to their places in line; the attempts are not counted.
--
-- ARGV  pairs: id, token
-- Returns how many were ours.
local released = 0
for i = 1, #ARGV, 2 do
  local id, m = ARGV[i], get_meta(ARGV[i])
  if m and m.state == 'l' and m.token == ARGV[i + 1] then
    call('ZREM', NS .. 'leased:' .. m.queue, id)
    released = released + 1
    if m.cancel == '1' then
      drop(id, m)
    else
      m.token, m.attempt = '0', tonumber(m.attempt) - 1
      line_up(id, m, tonumber(m.order))
      call('HSET', NS .. 'meta', id, pack(m))
    end
  end
end
commit()
return released
