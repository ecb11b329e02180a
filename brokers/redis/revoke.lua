-- flags: allow-oom
-- parts: line ends
-- Removes messages in whatever state, uncounted by their groups, and keeps them from being stored for some minutes.
--
-- ARGV[1]  how many messages
-- ARGV[2...]  message ids, then groups to remove
-- Returns how many messages were here.
local last, ids = 1 + tonumber(ARGV[1]), {}
local found = 0
for i = 2, last do
  local id, m = ARGV[i], get_meta(ARGV[i])
  ids[#ids + 1] = id
  if m then
    found = found + 1
    for _, kind in ipairs({ 'waiting:', 'delayed:', 'leased:', 'dead:' }) do
      call('ZREM', NS .. kind .. m.queue, id)
    end
    call('HDEL', NS .. 'why', id)
  end
end
forget(ids)
remember_ended(ids)
for i = last + 1, #ARGV do
  call('HDEL', NS .. 'groups', ARGV[i])
  call('HDEL', NS .. 'callbacks', ARGV[i])
end
return found
