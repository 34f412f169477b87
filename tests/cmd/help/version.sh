moetool --version
