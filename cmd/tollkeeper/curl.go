package main

import (
	"encoding/base64"
	"io"
	"net/url"
	"slices"
	"strings"
)

// curl is the parts of a curl command that shape the request.
type curl struct {
	*question
	stdin           io.Reader
	url, kind       string
	data            []string
	hasMethod       bool
	head, get, asIs bool
	own             [][2]string // headers that curl adds, unless -H sets or removes them
	withoutDefault  []string    // headers that -H 'name:' removes
}

// curlFlags are the flags with a value that change the request, by their long names.
var curlFlags = map[string]func(*curl, string) error{
	"request": func(c *curl, v string) error { c.method, c.hasMethod = v, true; return nil }, "header": (*curl).header,
	"url":  (*curl).target,
	"data": (*curl).form, "data-ascii": (*curl).form, "data-binary": (*curl).binary, "data-raw": (*curl).raw,
	"data-urlencode": (*curl).encode, "json": (*curl).json,
	"user": func(c *curl, v string) error {
		return c.set("authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(v)))
	},
	"oauth2-bearer": func(c *curl, v string) error { return c.set("authorization", "Bearer "+v) },
	"user-agent":    func(c *curl, v string) error { return c.set("user-agent", v) },
	"referer":       func(c *curl, v string) error { return c.set("referer", v) },
	"cookie":        (*curl).cookie,
}

// curlSwitches are the flags without a value that change the request.
var curlSwitches = map[string]func(*curl){
	"head": func(c *curl) { c.head = true }, "get": func(c *curl) { c.get = true }, "path-as-is": func(c *curl) { c.asIs = true },
	"compressed": func(c *curl) { c.headers = append(c.headers, "accept-encoding: deflate, gzip, br, zstd") },
}

// curlShort are the long names of short flags.
var curlShort = map[byte]string{
	'X': "request", 'H': "header", 'd': "data", 'u': "user", 'A': "user-agent", 'e': "referer", 'b': "cookie", 'I': "head", 'G': "get",
	's': "silent", 'S': "show-error", 'v': "verbose", 'i': "include", 'k': "insecure", 'L': "location", 'f': "fail", 'N': "no-buffer",
	'O': "remote-name", 'J': "remote-header-name", 'g': "globoff", 'q': "disable", '#': "progress-bar", '4': "ipv4", '6': "ipv6",
	'0': "http1.0", 'o': "output", 'w': "write-out", 'm': "max-time", 'x': "proxy", 'E': "cert", 'c': "cookie-jar", 'D': "dump-header",
}

// Flags that do not change the request: with a value, and without.
var (
	curlValues = strings.Fields("output write-out max-time connect-timeout retry retry-delay retry-max-time proxy cacert capath cert key " +
		"resolve connect-to cookie-jar dump-header limit-rate interface unix-socket ciphers tls-max")
	curlSilent = strings.Fields("silent show-error verbose include insecure location fail fail-with-body no-buffer remote-name " +
		"remote-header-name globoff disable progress-bar no-progress-meter ipv4 ipv6 http1.0 http1.1 http2 http2-prior-knowledge http3 tlsv1.2 tlsv1.3")
)

// readCurl reads the request that a curl command would send from the arguments of curl.
func (q *question) readCurl(words []string, stdin io.Reader) error {
	c := &curl{question: q, stdin: stdin}
	for len(words) > 0 {
		var err error
		if words, err = c.word(words); err != nil {
			return err
		}
	}
	return c.finish()
}

// word reads the first word, with its value if that is the next word.
func (c *curl) word(words []string) (rest []string, err error) {
	word, rest := words[0], words[1:]
	switch {
	case strings.HasPrefix(word, "--") && word != "--":
		return c.flag(word, strings.TrimPrefix(word, "--"), nil, rest)
	case strings.HasPrefix(word, "-") && len(word) > 1 && word != "--":
		for i := 1; i < len(word); i++ {
			name, known := curlShort[word[i]]
			if !known {
				return nil, c.unknown("-" + word[i:i+1])
			}
			if attached := word[i+1:]; attached != "" && takesValue(name) {
				return c.flag("-"+word[i:i+1], name, &attached, rest)
			}
			if rest, err = c.flag("-"+word[i:i+1], name, nil, rest); err != nil {
				return nil, err
			}
		}
		return rest, nil
	case word == "--":
		return rest, nil
	}
	return rest, c.target(word)
}

func takesValue(name string) bool { return curlFlags[name] != nil || slices.Contains(curlValues, name) }

// flag reads one flag by its long name. Its value is attached, or the next word.
func (c *curl) flag(as, name string, value *string, rest []string) ([]string, error) {
	if !takesValue(name) {
		if apply := curlSwitches[name]; apply != nil {
			apply(c)
		} else if !slices.Contains(curlSilent, name) {
			return nil, c.unknown(as)
		}
		return rest, nil
	}
	if value == nil {
		if len(rest) == 0 {
			return nil, usagef("curl %s: its value is missing", as)
		}
		value, rest = &rest[0], rest[1:]
	}
	if use := curlFlags[name]; use != nil {
		return rest, use(c, *value)
	}
	return rest, nil
}

func (c *curl) unknown(flag string) error {
	return usagef("curl %s: this flag is not supported: leave it out, or describe the request with flags of explain", flag)
}

func (c *curl) target(s string) error {
	if c.url != "" {
		return usagef("curl: there is a second URL, %q: want one", s)
	}
	c.url = s
	return nil
}

// header reads -H: 'name: value', 'name;' for an empty value, and 'name:' to remove a header that curl adds.
func (c *curl) header(s string) error {
	name, value, ok := strings.Cut(s, ":")
	switch {
	case ok && strings.TrimSpace(value) == "":
		c.withoutDefault = append(c.withoutDefault, strings.ToLower(strings.TrimSpace(name)))
	case ok && strings.EqualFold(strings.TrimSpace(name), "host"):
		c.withoutDefault = append(c.withoutDefault, "host")
		c.host = strings.TrimSpace(value)
	case ok:
		c.headers = append(c.headers, s)
	case strings.HasSuffix(s, ";"):
		c.headers = append(c.headers, strings.TrimSuffix(s, ";")+":")
	default:
		return usagef("curl -H %q: want 'name: value'", s)
	}
	return nil
}

// set sets a header that has a flag of its own.
func (c *curl) set(name, value string) error {
	c.own = append(c.own, [2]string{name, value})
	return nil
}

func (c *curl) cookie(s string) error {
	if !strings.Contains(s, "=") {
		return usagef("curl -b %q: want name=value: files of cookies are not supported", s)
	}
	c.headers = append(c.headers, "cookie: "+s)
	return nil
}

func (c *curl) raw(s string) error { c.data = append(c.data, s); return nil }

func (c *curl) binary(s string) error {
	b, err := readBody(s, c.stdin)
	c.data = append(c.data, string(b))
	return err
}

// form reads -d. As in curl, line breaks of a file are removed.
func (c *curl) form(s string) error {
	b, err := readBody(s, c.stdin)
	text := string(b)
	if strings.HasPrefix(s, "@") {
		text = strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(text)
	}
	c.data = append(c.data, text)
	return err
}

func (c *curl) json(s string) error {
	c.kind = "application/json"
	return c.binary(s)
}

// encode reads --data-urlencode: content, =content, name=content, @file and name@file.
func (c *curl) encode(s string) error {
	name, content := "", s
	if i := strings.IndexAny(s, "=@"); i >= 0 {
		name, content = s[:i], s[i+1:]
		if s[i] == '@' {
			b, err := readBody(s[i:], c.stdin)
			if err != nil {
				return err
			}
			content = string(b)
		}
	}
	content = strings.ReplaceAll(url.QueryEscape(content), "+", "%20")
	if name != "" {
		content = name + "=" + content
	}
	c.data = append(c.data, content)
	return nil
}

// finish makes the request from all flags.
func (c *curl) finish() error {
	if c.url == "" {
		return usagef("curl: give the URL")
	}
	if !strings.Contains(c.url, "://") {
		c.url = "http://" + c.url
	}
	u, ok := cutURL(c.url)
	if !ok {
		return usagef("curl: %q is not a URL: want one such as https://api.example.com/v1/reports", c.url)
	}
	path, query, asks := strings.Cut(u.target, "?")
	if !c.asIs {
		path = withoutDots(path)
	}
	body := strings.Join(c.data, "&")
	if c.kind == "application/json" {
		body = strings.Join(c.data, "")
	}
	if c.get && len(c.data) > 0 {
		query, asks = strings.TrimPrefix(query+"&"+body, "&"), true
		body, c.data = "", nil
	}
	if c.path = path; asks {
		c.path += "?" + query
	}
	c.scheme = u.scheme
	if !slices.Contains(c.withoutDefault, "host") {
		c.host = strings.TrimSuffix(u.host, map[string]string{"http": ":80", "https": ":443"}[u.scheme])
	}
	if u.user != "" {
		user, err := url.PathUnescape(u.user)
		if err != nil {
			return usagef("curl: the user in %q is malformed: want percent-encoding", c.url)
		}
		_ = c.set("authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user)))
	}
	c.defaults()
	c.content = []byte(body)
	return nil
}

// defaults adds the method and the headers that curl sends by itself.
func (c *curl) defaults() {
	switch {
	case c.hasMethod:
	case c.head:
		c.method = "HEAD"
	case len(c.data) > 0:
		c.method = "POST"
	}
	accept := "*/*"
	switch {
	case c.kind != "":
		accept = c.kind
	case len(c.data) > 0:
		c.kind = "application/x-www-form-urlencoded"
	}
	for _, h := range append(c.own, [2]string{"user-agent", "curl/8"}, [2]string{"accept", accept}, [2]string{"content-type", c.kind}) {
		if h[1] != "" && !c.has(h[0]) && !slices.Contains(c.withoutDefault, h[0]) {
			c.headers = append(c.headers, h[0]+": "+h[1])
		}
	}
}

func (c *curl) has(name string) bool {
	return slices.ContainsFunc(c.headers, func(h string) bool {
		n, _, _ := strings.Cut(h, ":")
		return strings.EqualFold(strings.TrimSpace(n), name)
	})
}

// withoutDots removes the dot segments of a path, as curl does without --path-as-is (RFC 3986 section 5.2.4).
func withoutDots(path string) string {
	var out []string
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}
