-- Put before every other script of this folder: the vocabulary of the store.
--
-- KEYS[1]  the namespace as a hash tag, such as {fanfare}; every key begins with it, so that all live in one cluster slot.
--          The keys are made from it and from the queues that the data names, so they cannot all be passed in KEYS.
--
-- <ns>:meta             hash    message id -> what the store knows of it, see `pack`
-- <ns>:body             hash    message id -> body
-- <ns>:waiting:<queue>  zset    message id by priority, then order
-- <ns>:delayed:<queue>  zset    message id by due time
-- <ns>:leased:<queue>   zset    message id by the lease's end
-- <ns>:dead:<queue>     zset    message id by time of death
-- <ns>:why              hash    message id of a dead letter -> actor, code, error, in lines
-- <ns>:queues           set     names of all queues ever used
-- <ns>:paused           set     names of paused queues
-- <ns>:wake:<queue>     list    at most one element: idle workers block on it
-- <ns>:groups           hash    group -> members that have not ended; lives until the last one has
-- <ns>:callbacks        hash    group -> its callbacks as envelopes, for members that end without a worker
-- <ns>:order            string  the last order given, see `next_order`
-- <ns>:token            string  the last token given
-- <ns>:applied:<n>      bitmap  one bit for each token that was used up; expires
-- <ns>:ended:new, :old  sets    ids of messages that ended lately, so that a repeated enqueue does nothing; expire
-- <ns>:claim:<request>  string  first and last token of a claim; expires
-- <ns>:result:<id>      string  result; expires
-- <ns>:tat:<key>        string  limiter: the theoretical arrival time of its next slot; expires
-- <ns>:slots:<call>     string  limiter: how a reservation was made; expires
--
-- Moments and durations are ticks of 10 microseconds, moments since 2025, by the server's clock. A score of `waiting` is
-- priority * 2^47 + order, an integer below 2^53: exact in a double until the year 2069, for priorities from -64 to 63.

local NS = KEYS[1] .. ':'
local EPOCH_S = 1735689600
local BAND = 2 ^ 47
local CHUNK = 1000 -- most values handed to one command at a time; Lua's stack takes about 8000
local ENDED_MAX = 250000
local ENDED_MS = 300000
local APPLIED_MS = 600000
local BITS = 65536

local call = redis.call
local time = call('TIME')
local now = (tonumber(time[1]) - EPOCH_S) * 100000 + math.floor(tonumber(time[2]) / 10)

local function integer(number)
  return string.format('%.0f', number)
end

-- Reads words from `header` and bytes from `blob`, both in the order in which they were written.
local function reader(header, blob)
  local at = 1
  return string.gmatch(header, '%S+'), function(length)
    at = at + length
    return string.sub(blob, at - length, at - 1)
  end
end

-- Calls `command key ...` with `values`, a chunk at a time; `CHUNK` is even, so that pairs stay together.
local function call_many(command, key, values)
  for first = 1, #values, CHUNK do
    call(command, key, unpack(values, first, math.min(first + CHUNK - 1, #values)))
  end
end

local function get_many(key, ids)
  if #ids <= CHUNK then
    return #ids == 0 and {} or call('HMGET', key, unpack(ids))
  end
  local values = {}
  for first = 1, #ids, CHUNK do
    for _, value in ipairs(call('HMGET', key, unpack(ids, first, math.min(first + CHUNK - 1, #ids)))) do
      values[#values + 1] = value
    end
  end
  return values
end

-- state: w waiting or delayed, l leased, x dead. group: - none, * left already. cancel: 1 when asked to stop.
local function pack(m)
  return m.state .. ' ' .. m.token .. ' ' .. m.queue .. ' ' .. m.group .. ' ' .. m.priority .. ' ' .. m.order
    .. ' ' .. m.attempt .. ' ' .. m.lost .. ' ' .. m.cancel
end

local function unpack_meta(text)
  local m = {}
  m.state, m.token, m.queue, m.group, m.priority, m.order, m.attempt, m.lost, m.cancel =
    string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  return m
end

local function get_meta(id)
  local text = call('HGET', NS .. 'meta', id)
  return text and unpack_meta(text)
end

local last_order, order_moved

-- The present moment, or a little later where it was given before: unique and ascending.
local function next_order()
  last_order = math.max(now, (last_order or tonumber(call('GET', NS .. 'order') or '0')) + 1)
  order_moved = true
  return last_order
end

local to_wake, used_queues = {}, {}

-- Writes what was gathered on the way; each script that changes something ends with it.
local function commit()
  if order_moved then
    call('SET', NS .. 'order', integer(last_order))
  end
  for queue in pairs(used_queues) do
    call('SADD', NS .. 'queues', queue)
  end
  for queue in pairs(to_wake) do
    local key = NS .. 'wake:' .. queue
    if call('LLEN', key) == 0 then
      call('RPUSH', key, '1')
    end
  end
end

local function score(priority, order)
  return math.max(-64, math.min(63, tonumber(priority))) * BAND + order
end

-- Puts a message in line: at `due` where that is in the future, now otherwise.
local function line_up(id, m, order, due)
  m.state = 'w'
  if due and due > now then
    m.order = integer(due)
    local delayed = NS .. 'delayed:' .. m.queue
    call('ZADD', delayed, due, id)
    if call('ZRANGE', delayed, 0, 0)[1] == id then
      to_wake[m.queue] = true -- an idle worker must learn that it has to wake sooner
    end
  else
    m.order = integer(order)
    call('ZADD', NS .. 'waiting:' .. m.queue, score(m.priority, order), id)
    to_wake[m.queue] = true
  end
end

-- when: 0 now, +n ticks later, @n at that moment
local function due_at(when, order)
  local sign = string.sub(when, 1, 1)
  if sign == '+' then
    return order + tonumber(string.sub(when, 2))
  elseif sign == '@' then
    return tonumber(string.sub(when, 2))
  end
end

-- Stores the `count` messages that come next: id queue priority when group length, and the body.
local function store_many(count, word, bytes)
  local new = 0
  local remember = call('EXISTS', NS .. 'ended:new', NS .. 'ended:old') > 0
  for _ = 1, count do
    local id, queue, priority, when, group, body = word(), word(), word(), word(), word(), bytes(tonumber(word()))
    local ended = remember
      and (call('SISMEMBER', NS .. 'ended:new', id) == 1 or call('SISMEMBER', NS .. 'ended:old', id) == 1)
    if not ended and call('HSETNX', NS .. 'body', id, body) == 1 then
      local m = { token = '0', queue = queue, group = group, priority = priority, attempt = 0, lost = 0, cancel = '0' }
      local order = next_order()
      line_up(id, m, order, due_at(when, order))
      call('HSET', NS .. 'meta', id, pack(m))
      used_queues[queue] = true
      new = new + 1
    end
  end
  return new
end

-- A member of `group` ended. After the last one the callbacks enter the store: those given, or those kept.
local function leave_group(group, count, word, bytes)
  local left = tonumber(call('HGET', NS .. 'groups', group) or '0')
  if left > 1 then
    call('HINCRBY', NS .. 'groups', group, -1)
  elseif left == 1 then
    call('HDEL', NS .. 'groups', group)
    local kept = call('HGET', NS .. 'callbacks', group)
    call('HDEL', NS .. 'callbacks', group)
    if count > 0 then
      store_many(count, word, bytes)
    elseif kept then
      local header, blob = string.match(kept, '^([^\n]*)\n(.*)$')
      word, bytes = reader(header, blob)
      store_many(tonumber(word()), word, bytes)
    end
  end
end

local function remember_ended(ids)
  if #ids == 0 then
    return
  end
  local fresh = NS .. 'ended:new'
  local age = ENDED_MS - call('PTTL', fresh) -- above ENDED_MS when there is none
  if age <= ENDED_MS and (age > ENDED_MS / 2 or call('SCARD', fresh) >= ENDED_MAX) then
    call('UNLINK', NS .. 'ended:old')
    call('RENAME', fresh, NS .. 'ended:old')
    age = ENDED_MS + 1
  end
  call_many('SADD', fresh, ids)
  if age > ENDED_MS then
    call('PEXPIRE', fresh, ENDED_MS)
  end
end

local function forget(ids)
  call_many('HDEL', NS .. 'meta', ids)
  call_many('HDEL', NS .. 'body', ids)
end

-- Ends a message that no worker finished; its group counts it.
local function drop(id, m)
  forget({ id })
  if m.group ~= '-' and m.group ~= '*' then
    leave_group(m.group, 0)
  end
end

local function die(id, m, code, error)
  local ok, message = pcall(cjson.decode, call('HGET', NS .. 'body', id) or '')
  local actor = ok and type(message) == 'table' and type(message.actor_name) == 'string' and message.actor_name or ''
  m.state = 'x'
  call('ZADD', NS .. 'dead:' .. m.queue, next_order(), id)
  call('HSET', NS .. 'why', id, string.gsub(actor, '\n', ' ') .. '\n' .. string.gsub(code, '\n', ' ') .. '\n' .. error)
end
