-- flags: no-writes
-- parts:
-- The newest dead letters of a queue, newest first.
--
-- ARGV[1]  queue
-- ARGV[2]  how many
-- ARGV[3]  only those that died before this tick; +inf for all
-- Returns of each: {id, time of death, attempts, body, why}.
local before = ARGV[3] == '+inf' and ARGV[3] or '(' .. ARGV[3]
local rows = call('ZRANGE', NS .. 'dead:' .. ARGV[1], before, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
local letters = {}
for i = 1, #rows, 2 do
  local id = rows[i]
  local m = get_meta(id)
  if m then
    local body, why = call('HGET', NS .. 'body', id) or '', call('HGET', NS .. 'why', id) or ''
    letters[#letters + 1] = { id, rows[i + 1], tonumber(m.attempt), body, why }
  end
end
return letters
