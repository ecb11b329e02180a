-- flags: allow-oom
-- parts:
-- Renews leases.
--
-- ARGV[1]  lease in ticks
-- ARGV[2...]  pairs: id, token
-- Returns {ids no longer ours, ids asked to stop}.
local lost, cancelled = {}, {}
for i = 2, #ARGV, 2 do
  local id, m = ARGV[i], get_meta(ARGV[i])
  if m and m.state == 'l' and m.token == ARGV[i + 1] then
    call('ZADD', NS .. 'leased:' .. m.queue, now + tonumber(ARGV[1]), id)
    if m.cancel == '1' then
      cancelled[#cancelled + 1] = id
    end
  else
    lost[#lost + 1] = id
  end
end
return { lost, cancelled }
