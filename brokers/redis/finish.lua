-- flags: allow-oom
-- parts: line ends
-- Applies what follows attempts: each one that holds the message's present token, and none twice.
--
-- ARGV[1]  header: count, then for each: id token how; how is d for DONE with nothing else, otherwise D done, R retry,
--          S reschedule, X dead, C cancelled, followed by: when, lengths of code, error and result (- for none), life of
--          the result in ms, group, count of follow-ups, count of callbacks, and these as in enqueue.lua
-- ARGV[2]  blob: of each its code, error, result, bodies of its follow-ups and of its callbacks
-- Returns a text with 1 or 0 for each: applied (now or before), or not.
local word, bytes = reader(ARGV[1], ARGV[2])
local count = tonumber(word())
local used, by_queue, ended = {}, {}, {}

local function was_used(token)
  local number = tonumber(token)
  return used[token] or call('GETBIT', NS .. 'applied:' .. math.floor(number / BITS), number % BITS) == 1
end

local function unlease(id, queue)
  local ids = by_queue[queue] or {}
  by_queue[queue] = ids
  ids[#ids + 1] = id
end

local function envelopes(n)
  local header, bodies = { n }, {}
  for _ = 1, n do
    for _ = 1, 5 do
      header[#header + 1] = word()
    end
    local length = word()
    header[#header + 1] = length
    bodies[#bodies + 1] = bytes(tonumber(length))
  end
  return table.concat(header, ' '), table.concat(bodies)
end

local function read_rest(f)
  f.when = word()
  local code, err, result = tonumber(word()), tonumber(word()), tonumber(word())
  f.ttl, f.group = tonumber(word()), word()
  local follow_ups, callbacks = tonumber(word()), tonumber(word())
  f.code, f.error, f.result = bytes(code), bytes(err), result and bytes(result)
  f.follow_ups = follow_ups > 0 and { envelopes(follow_ups) }
  f.callbacks = callbacks > 0 and { envelopes(callbacks) }
end

local function leave(m, f)
  local group = m.group
  if group == '-' and f.group then
    group = f.group
  end
  if group ~= '-' and group ~= '*' then
    m.group = '*'
    if f.callbacks then
      local next_word, next_bytes = reader(f.callbacks[1], f.callbacks[2])
      leave_group(group, tonumber(next_word()), next_word, next_bytes)
    else
      leave_group(group, 0)
    end
  end
end

local function apply(f, m)
  local how = f.how
  if f.result then
    call('SET', NS .. 'result:' .. f.id, f.result, 'PX', math.max(1, f.ttl))
  end
  if f.follow_ups then
    local next_word, next_bytes = reader(f.follow_ups[1], f.follow_ups[2])
    store_many(tonumber(next_word()), next_word, next_bytes)
  end
  if (how == 'R' or how == 'S') and m.cancel == '1' then
    how = 'C' -- asked to stop while it ran: it does not run again
  end
  if how == 'R' or how == 'S' then
    m.attempt = tonumber(m.attempt) - (how == 'S' and 1 or 0)
    m.token = '0'
    local order = next_order()
    line_up(f.id, m, order, due_at(f.when, order))
    call('HSET', NS .. 'meta', f.id, pack(m))
  elseif how == 'X' then
    leave(m, f)
    die(f.id, m, f.code, f.error)
    m.token = '0'
    call('HSET', NS .. 'meta', f.id, pack(m))
  else
    leave(m, f)
    ended[#ended + 1] = f.id
  end
end

local finishes, ids = {}, {}
for n = 1, count do
  local f = { id = word(), token = word(), how = word() }
  if f.how ~= 'd' then
    read_rest(f)
  end
  finishes[n], ids[n] = f, f.id
end

local metas, answers = get_many(NS .. 'meta', ids), {}
for n, f in ipairs(finishes) do
  local token, queue, group = string.match(metas[n] or '', '^l (%d+) %d+ (%S+) (%S+)')
  if token == f.token and not used[token] then
    used[token] = true
    unlease(f.id, queue)
    if f.how == 'd' and group == '-' then
      ended[#ended + 1] = f.id
    else
      apply(f, unpack_meta(metas[n]))
    end
    answers[n] = '1'
  else
    answers[n] = was_used(f.token) and '1' or '0'
  end
end

forget(ended)
remember_ended(ended)
for queue, leased in pairs(by_queue) do
  call_many('ZREM', NS .. 'leased:' .. queue, leased)
  if call('EXISTS', NS .. 'waiting:' .. queue) == 1 then
    to_wake[queue] = true -- the place that became free
  end
end
local pages = {}
for token in pairs(used) do
  local number = tonumber(token)
  local page = math.floor(number / BITS)
  local bits = pages[page] or {}
  pages[page] = bits
  local at = #bits
  bits[at + 1], bits[at + 2], bits[at + 3], bits[at + 4] = 'SET', 'u1', number % BITS, '1'
end
for page, bits in pairs(pages) do
  call_many('BITFIELD', NS .. 'applied:' .. page, bits)
  call('PEXPIRE', NS .. 'applied:' .. page, APPLIED_MS)
end
commit()
return table.concat(answers)
