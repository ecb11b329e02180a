-- flags: allow-oom
-- parts: line ends
-- Takes expired leases back: to their places in line, or to the dead letters.
--
-- ARGV[1]  losses that make a message poison
-- ARGV[2]  most leases of one queue to look at
-- Returns {how many had expired, 1 when there may be more}.
local most, max_lost = tonumber(ARGV[2]), tonumber(ARGV[1])
local expired, more = 0, 0
for _, queue in ipairs(call('SMEMBERS', NS .. 'queues')) do
  local leased = NS .. 'leased:' .. queue
  local ids = call('ZRANGEBYSCORE', leased, '-inf', now, 'LIMIT', 0, most)
  more = #ids == most and 1 or more
  expired = expired + #ids
  for _, id in ipairs(ids) do
    local m = get_meta(id)
    call('ZREM', leased, id)
    if m and m.cancel == '1' then
      drop(id, m)
    elseif m then
      m.token, m.lost = '0', tonumber(m.lost) + 1
      if m.lost >= max_lost then
        if m.group ~= '-' and m.group ~= '*' then
          leave_group(m.group, 0)
          m.group = '*'
        end
        die(id, m, 'crashed', 'Its worker fell silent ' .. m.lost .. ' times: it may take workers down.')
      else
        line_up(id, m, tonumber(m.order))
      end
      call('HSET', NS .. 'meta', id, pack(m))
    end
  end
end
commit()
return { expired, more }
