-- What follows the end of a message: groups, dead letters, memory of what ended.

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
