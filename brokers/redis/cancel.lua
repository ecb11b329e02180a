-- flags: allow-oom
-- parts: line ends
-- Removes messages that wait and asks those that run to stop.
--
-- ARGV  message ids
-- Returns how many were found.
local found = 0
for _, id in ipairs(ARGV) do
  local m = get_meta(id)
  if m and m.state == 'w' then
    if call('ZREM', NS .. 'waiting:' .. m.queue, id) == 0 then
      call('ZREM', NS .. 'delayed:' .. m.queue, id)
    end
    drop(id, m)
    found = found + 1
  elseif m and m.state == 'l' then
    m.cancel = '1'
    call('HSET', NS .. 'meta', id, pack(m))
    found = found + 1
  end
end
commit()
return found
