-- How messages get in line: order, time, wake-ups.

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

local function delay(id, queue, due)
  local delayed = NS .. 'delayed:' .. queue
  call('ZADD', delayed, due, id)
  if call('ZRANGE', delayed, 0, 0)[1] == id then
    to_wake[queue] = true -- an idle worker must learn that it has to wake sooner
  end
end

-- Puts a message in line: at `due` where that is in the future, now otherwise.
local function line_up(id, m, order, due)
  m.state = 'w'
  if due and due > now then
    m.order = integer(due)
    delay(id, m.queue, due)
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

local function ended_lately(ids)
  if call('EXISTS', NS .. 'ended:new', NS .. 'ended:old') == 0 then
    return {}
  end
  local ended = {}
  for _, key in ipairs({ NS .. 'ended:new', NS .. 'ended:old' }) do
    for first = 1, #ids, CHUNK do
      local answers = call('SMISMEMBER', key, unpack(ids, first, math.min(first + CHUNK - 1, #ids)))
      for n, answer in ipairs(answers) do
        ended[first + n - 1] = ended[first + n - 1] or answer == 1
      end
    end
  end
  return ended
end

-- Stores the `count` messages that come next: id queue priority when group length, and the body.
-- One by one, each message would cost several commands; gathered, a batch does.
local function store_many(count, word, bytes)
  local ids, queues, priorities, times, groups, bodies = {}, {}, {}, {}, {}, {}
  for n = 1, count do
    ids[n], queues[n], priorities[n], times[n], groups[n] = word(), word(), word(), word(), word()
    bodies[n] = bytes(tonumber(word()))
  end
  local known, ended, seen = get_many(NS .. 'meta', ids), ended_lately(ids), {}
  local metas, texts, arrivals, new = {}, {}, {}, 0
  for n, id in ipairs(ids) do
    if not known[n] and not ended[n] and not seen[id] then
      local queue, order = queues[n], next_order()
      local due = due_at(times[n], order)
      local late = due and due > now
      local at = integer(late and due or order)
      if late then
        delay(id, queue, due)
      else
        local line = arrivals[queue] or {}
        arrivals[queue] = line
        line[#line + 1] = score(priorities[n], order)
        line[#line + 1] = id
      end
      new = new + 1
      seen[id] = true
      metas[2 * new - 1], texts[2 * new - 1] = id, id
      metas[2 * new] = 'w 0 0 ' .. queue .. ' ' .. groups[n] .. ' ' .. priorities[n] .. ' ' .. at .. ' 0 0'
      texts[2 * new] = bodies[n]
      used_queues[queue] = true
    end
  end
  call_many('HSET', NS .. 'meta', metas)
  call_many('HSET', NS .. 'body', texts)
  for queue, line in pairs(arrivals) do
    call_many('ZADD', NS .. 'waiting:' .. queue, line)
    to_wake[queue] = true
  end
  return new
end
