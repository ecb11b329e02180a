-- flags: no-writes
-- parts:
-- The state of queues.
--
-- ARGV  queues; all that were ever used when there are none
-- Returns of each: {queue, waiting, delayed, leased, dead, 1 when paused, ticks that the oldest runnable one waits or -1}.
local queues, states = ARGV, {}
if #ARGV == 0 then
  queues = call('SUNION', NS .. 'queues', NS .. 'paused')
end

-- The head of each priority is the oldest of that priority.
local function oldest(queue)
  local due = tonumber(call('ZRANGE', NS .. 'delayed:' .. queue, 0, 0, 'WITHSCORES')[2] or 'inf')
  local age = due <= now and now - due or -1
  local head = call('ZRANGE', NS .. 'waiting:' .. queue, 0, 0, 'WITHSCORES')
  while head[1] do
    local band = math.floor(tonumber(head[2]) / BAND)
    age = math.max(age, 0, now - (tonumber(head[2]) - band * BAND))
    head = call('ZRANGE', NS .. 'waiting:' .. queue, (band + 1) * BAND, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  end
  return age
end

for _, queue in ipairs(queues) do
  local delayed = NS .. 'delayed:' .. queue
  local due = call('ZCOUNT', delayed, '-inf', now)
  states[#states + 1] = {
    queue,
    call('ZCARD', NS .. 'waiting:' .. queue) + due,
    call('ZCARD', delayed) - due,
    call('ZCARD', NS .. 'leased:' .. queue),
    call('ZCARD', NS .. 'dead:' .. queue),
    call('SISMEMBER', NS .. 'paused', queue),
    oldest(queue),
  }
end
return states
