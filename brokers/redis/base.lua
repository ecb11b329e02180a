-- Stands before every script of this folder: the vocabulary of the store.
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
-- <ns>:move:<batch>     hash    message id set aside by a mover -> where it was, and its score there
-- <ns>:moving           zset    batch of the former by the end of its lease
-- <ns>:moved:<batch>    string  the batch was moved out of here or into here; expires
-- <ns>:identity         string  names this store
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

-- state: w waiting or delayed, l leased, x dead, m on the move. group: - none, * left already. cancel: 1 when asked to stop.
-- What a claim changes stands first, so that it need not take the rest apart.
local function pack(m)
  return m.state .. ' ' .. m.token .. ' ' .. m.attempt .. ' ' .. m.queue .. ' ' .. m.group .. ' ' .. m.priority .. ' '
    .. m.order .. ' ' .. m.lost .. ' ' .. m.cancel
end

local function unpack_meta(text)
  local m = {}
  m.state, m.token, m.attempt, m.queue, m.group, m.priority, m.order, m.lost, m.cancel =
    string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  return m
end

local function get_meta(id)
  local text = call('HGET', NS .. 'meta', id)
  return text and unpack_meta(text)
end
