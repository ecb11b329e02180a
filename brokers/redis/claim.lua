-- flags: allow-oom
-- parts: line
-- Leases messages of several queues, by priority, then order. Repeated with the same request, it returns the same ones.
--
-- ARGV[1]  request id
-- ARGV[2]  room: most messages
-- ARGV[3]  lease in ticks
-- ARGV[4]  longest reply in bytes; the first message is always returned
-- ARGV[5...]  pairs: queue, most leases of it at once (- for no bound)
-- Returns {header, bodies, ticks until the next delayed message is due or -1}; the header has for each message:
-- id token attempt queue group priority order lost cancel length
local PROMOTE = 500
local REQUEST_MS = 120000
local request, room, lease, max_bytes = 'claim:' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local header, bodies = {}, {}

-- `rest` is the end of the message's meta: queue group priority order lost cancel
local function add(id, token, attempt, rest, body)
  header[#header + 1] = id .. ' ' .. token .. ' ' .. attempt .. ' ' .. rest .. ' ' .. #body
  bodies[#bodies + 1] = body
end

local function reply(next_due)
  return { table.concat(header, ' '), table.concat(bodies), next_due }
end

local first, last = string.match(call('GET', NS .. request) or '', '(%d+) (%d+)')
if first then
  first, last = tonumber(first), tonumber(last)
  local ours = {}
  for i = 5, #ARGV, 2 do
    local ids = call('ZRANGE', NS .. 'leased:' .. ARGV[i], 0, -1)
    for n, text in ipairs(get_many(NS .. 'meta', ids)) do
      local token, attempt, rest = string.match(text or '', '^l (%d+) (%d+) (.*)$')
      token = tonumber(token)
      if token and token >= first and token <= last then
        ours[#ours + 1] = { id = ids[n], token = token, attempt = attempt, rest = rest }
      end
    end
  end
  table.sort(ours, function(one, other)
    return one.token < other.token
  end)
  for _, m in ipairs(ours) do
    add(m.id, integer(m.token), m.attempt, m.rest, call('HGET', NS .. 'body', m.id) or '')
  end
  return reply(-1)
end

-- Moves what became due from `delayed` to `waiting`; returns when the next one is due.
local function promote(queue)
  local delayed = NS .. 'delayed:' .. queue
  local next_one = call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  if not next_one[1] or tonumber(next_one[2]) > now then
    return tonumber(next_one[2])
  end
  local due = call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, PROMOTE)
  local scores = {}
  for n, text in ipairs(get_many(NS .. 'meta', due)) do
    if text then
      local m = unpack_meta(text)
      scores[#scores + 1] = score(m.priority, tonumber(m.order))
      scores[#scores + 1] = due[n]
    end
  end
  call('ZREMRANGEBYRANK', delayed, 0, #due - 1)
  call_many('ZADD', NS .. 'waiting:' .. queue, scores)
  return tonumber(call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2])
end

-- A view of the head of one queue, read in growing blocks.
local function look(cursor)
  if cursor.at > #cursor.block and cursor.capacity > cursor.read then
    local size = math.min(cursor.capacity - cursor.read, cursor.read == 0 and 32 or cursor.read)
    local from = cursor.read
    cursor.block = call('ZRANGE', NS .. 'waiting:' .. cursor.queue, from, from + size - 1, 'WITHSCORES')
    cursor.at, cursor.read = 1, from + size
  end
  cursor.score = tonumber(cursor.block[cursor.at + 1])
  return cursor.score ~= nil
end

local paused = {}
for _, queue in ipairs(call('SMEMBERS', NS .. 'paused')) do
  paused[queue] = true
end

local next_due, cursors = nil, {}
for i = 5, #ARGV, 2 do
  local queue, free = ARGV[i], math.huge
  if not paused[queue] then
    local due = promote(queue)
    next_due = due and math.min(due, next_due or due) or next_due
    if ARGV[i + 1] ~= '-' then
      free = tonumber(ARGV[i + 1]) - call('ZCARD', NS .. 'leased:' .. queue)
    end
    local cursor = { queue = queue, free = free, capacity = math.min(room, free), block = {}, at = 1, read = 0 }
    cursor.taken, cursor.leases = {}, {}
    if free > 0 and look(cursor) then
      cursors[#cursors + 1] = cursor
    end
  end
end

local ids, owners, live = {}, {}, { unpack(cursors) }
while #ids < room and #live > 0 do
  local best = 1
  for i = 2, #live do
    if live[i].score < live[best].score then
      best = i
    end
  end
  local cursor = live[best]
  ids[#ids + 1] = cursor.block[cursor.at]
  owners[#owners + 1] = cursor
  cursor.at = cursor.at + 2
  if not look(cursor) then
    table.remove(live, best)
  end
end

-- Wake-ups for what is taken now would wake someone in vain.
for i = 5, #ARGV, 2 do
  call('DEL', NS .. 'wake:' .. ARGV[i])
end

if #ids > 0 then
  if call('EXISTS', NS .. 'token') == 0 then
    -- Above every token of a store that was wiped.
    call('SET', NS .. 'token', integer(tonumber(time[1]) * 1000000 + tonumber(time[2])))
  end
  local token = tonumber(call('INCRBY', NS .. 'token', #ids)) - #ids
  local metas, texts = get_many(NS .. 'meta', ids), get_many(NS .. 'body', ids)
  local changes, size, first_token = {}, 0, token + 1
  for n, id in ipairs(ids) do
    local body = texts[n] or ''
    size = size + #body
    if n > 1 and size > max_bytes then
      break
    end
    local cursor = owners[n]
    cursor.taken[#cursor.taken + 1] = id
    if metas[n] then
      token = token + 1
      local attempt, rest = string.match(metas[n], '^w 0 (%d+) (.*)$')
      local name = integer(token)
      attempt = attempt + 1
      changes[#changes + 1] = id
      changes[#changes + 1] = 'l ' .. name .. ' ' .. attempt .. ' ' .. rest
      cursor.leases[#cursor.leases + 1] = now + lease
      cursor.leases[#cursor.leases + 1] = id
      add(id, name, attempt, rest, body)
    end
  end
  call_many('HSET', NS .. 'meta', changes)
  call('SET', NS .. request, integer(first_token) .. ' ' .. integer(token), 'PX', REQUEST_MS)
  for _, cursor in ipairs(cursors) do
    call_many('ZREM', NS .. 'waiting:' .. cursor.queue, cursor.taken)
    call_many('ZADD', NS .. 'leased:' .. cursor.queue, cursor.leases)
    if #cursor.taken < cursor.free and call('EXISTS', NS .. 'waiting:' .. cursor.queue) == 1 then
      to_wake[cursor.queue] = true -- more than we could take: the next idle worker
    end
  end
end
commit()
return reply(next_due and math.max(0, next_due - now) or -1)
