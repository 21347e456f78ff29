// SPDX-License-Identifier: Apache-2.0

package wire

// DefaultVersion is the version that a Server tells.
const DefaultVersion = "3.9.3-zk, built on 01/01/2026 00:00 GMT"

// telnetInterrupt is what telnet sends for an interrupt; it closes the connection (WP-61).
const telnetInterrupt = "\xff\xf4\xff\xfd"

// words are the four-letter words (section 8 of docs/spec/wire-protocol.md).
var words = map[string]func(*Server, *conn) string{
	"ruok": func(*Server, *conn) string { return "imok" },
}

// allowed is the set of words that are answered.
func allowed(list []string, readOnly bool) map[string]bool {
	set := map[string]bool{}
	if list == nil {
		set["srvr"], set["isro"] = true, readOnly
	}
	for _, w := range list {
		if w == "*" {
			for w := range words {
				set[w] = true
			}
		}
		set[w] = true
	}
	return set
}

func (c *conn) word(w string) {
	if w == telnetInterrupt {
		return
	}
	text := w + " is not executed because it is not in the whitelist.\n"
	if c.srv.words[w] {
		text = words[w](c.srv, c)
	}
	c.nc.Write([]byte(text))
	c.linger()
}
