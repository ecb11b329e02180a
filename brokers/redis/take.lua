-- flags: allow-oom
-- parts:
-- Sets messages aside for a move; of groups only those whose members are all given.
--
-- ARGV[1]  batch
-- ARGV[2]  lease in ticks
-- ARGV[3...]  message ids
-- Returns of each that is set aside: {id, queue, priority, order, attempt, lost, group, time of death or '', why, body}.
local batch = NS .. 'move:' .. ARGV[1]

if call('EXISTS', batch) == 0 and call('EXISTS', NS .. 'moved:' .. ARGV[1]) == 0 then
  local members, found = {}, {}
  for i = 3, #ARGV do
    local m = get_meta(ARGV[i])
    if m and (m.state == 'w' or m.state == 'x') then
      m.id = ARGV[i]
      found[#found + 1] = m
      members[m.group] = (members[m.group] or 0) + 1
    end
  end
  for _, m in ipairs(found) do
    local left = m.group ~= '-' and m.group ~= '*' and tonumber(call('HGET', NS .. 'groups', m.group) or '0') or 0
    if left == 0 or left == members[m.group] then
      local was = m.state == 'x' and 'dead' or call('ZSCORE', NS .. 'delayed:' .. m.queue, m.id) and 'delayed' or 'waiting'
      local key = NS .. was .. ':' .. m.queue
      call('HSET', batch, m.id, was .. ' ' .. integer(tonumber(call('ZSCORE', key, m.id))))
      call('ZREM', key, m.id)
      m.state = 'm'
      call('HSET', NS .. 'meta', m.id, pack(m))
    end
  end
  if call('EXISTS', batch) == 1 then
    call('ZADD', NS .. 'moving', now + tonumber(ARGV[2]), ARGV[1])
  end
end

local taken = {}
local rows = call('HGETALL', batch)
for i = 1, #rows, 2 do
  local id, m = rows[i], get_meta(rows[i])
  local died = string.match(rows[i + 1], '^dead (%S+)') or ''
  taken[#taken + 1] = {
    id, m.queue, m.priority, m.order, m.attempt, m.lost, m.group, died,
    call('HGET', NS .. 'why', id) or '', call('HGET', NS .. 'body', id) or '',
  }
end
return taken
