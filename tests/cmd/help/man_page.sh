# The man page that is committed is the one the tables give.
moetool help --man >man.1
expect cmp man.1 "$ROOT/docs/man/moetool.1"
