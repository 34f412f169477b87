moetool help
