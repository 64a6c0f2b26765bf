package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// question is the request that the command line describes. It reaches the checker byte for byte: this code does not parse paths.
type question struct {
	method, path, host, scheme, url string
	key, account, token, body, file string
	headers, context                []string
	content                         []byte // the body as it is sent
	decision                        string
	rules, profile                  bool
}

// described are the flags that must not be combined with a curl command or a request file.
var described = []string{"method", "path", "host", "url", "header", "body"}

func (c *cli) explainCmd() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "explain [-- curl ...]",
		Short: "Explain why a request is allowed or denied",
		Long: `Ask the running server how it would decide a request. The server runs the same code as
for a real request, and charges nothing. The answer has the facts, the route, the rule
that decided, and the remedy for the caller.

Describe the request with flags, or give the curl command that sends it. For a past
request, give the id of its decision.

With --profile the answer also says how long the policy takes for the request, and in which
rules and functions. The server evaluates it about 200 times for that, and only once if it
calls functions such as http.send.`,
		Example: `  # A request with a key, with a key by its id, with the first active key of an account.
  tollkeeper explain --path /v1/reports/7 --key tk_live_…
  tollkeeper explain --path /v1/reports/7 --key key_…
  tollkeeper explain --path /v1/reports/7 --account acme

  # A request with a body, from a curl command, from a CheckRequest in JSON.
  tollkeeper explain -X POST --path /v1/render -H 'content-type: text/plain' --body hello
  tollkeeper explain -- curl -H 'x-api-key: tk_live_…' https://api.example.com/v1/reports/7
  tollkeeper explain --request check.json

  # What a slow policy waits for.
  tollkeeper explain --path /v1/reports/7 --account acme --profile

  # A past decision, by x-authz-decision-id or x-request-id.
  tollkeeper explain --decision 0192d3a0-0000-7000-8000-000000000000`,
		RunE: func(cmd *cobra.Command, words []string) error {
			if err := notEmpty(cmd, "decision", "key", "account", "token", "url", "request"); err != nil {
				return err
			}
			if q.decision != "" && q.profile {
				return usagef("--profile: a past decision is not evaluated again: describe its request")
			}
			if q.decision != "" {
				return c.showDecision(cmd, q.decision)
			}
			if err := q.take(cmd, words); err != nil {
				return err
			}
			in, err := q.question(cmd.InOrStdin())
			if err != nil {
				return err
			}
			var e admin.Explanation
			if err := c.do(cmd, "POST", admin.Path("explain"), in, &e); err != nil {
				return err
			}
			return c.show(cmd, e, func(t *table) {
				explain(t, &e, q.rules)
				if q.profile {
					showProfile(t, e.Profile)
				}
			})
		},
	}
	q.flags(cmd.Flags())
	return cmd
}

func (q *question) flags(f *pflag.FlagSet) {
	f.SetInterspersed(false) // flags after curl belong to curl
	f.StringVarP(&q.method, "method", "X", "GET", "method of the request")
	f.StringVar(&q.path, "path", "/", "path with its query, exactly as it is sent")
	f.StringVar(&q.host, "host", "localhost", "host of the request")
	f.StringVar(&q.url, "url", "", "URL, in place of --path and --host")
	f.StringVar(&q.key, "key", "", "text or id of a key, sent in the first place where the server looks for keys")
	f.StringVar(&q.account, "account", "", "account whose first active key is sent")
	f.StringVar(&q.token, "token", "", "bearer token, sent as Authorization")
	f.StringArrayVarP(&q.headers, "header", "H", nil, "header as 'name: value' (repeatable)")
	f.StringVar(&q.body, "body", "", "body, or @ and the name of a file with the body")
	f.StringArrayVar(&q.context, "context", nil, "context extension of the route as name=value (repeatable)")
	f.StringVar(&q.file, "request", "", "file with a CheckRequest as JSON, in place of the flags above; - is standard input")
	f.StringVar(&q.decision, "decision", "", "show this decision: its id, or the x-request-id of its request")
	f.BoolVar(&q.rules, "rules", false, "list every rule that was evaluated")
	f.BoolVar(&q.profile, "profile", false, "show what the evaluation of the policy takes, and where")
}

// take completes the request from a curl command or a URL, if one is given.
func (q *question) take(cmd *cobra.Command, words []string) error {
	switch {
	case len(words) > 0 && words[0] != "curl":
		return usagef("there is an argument too many, %q: want flags, or -- curl with its own flags", words[0])
	case len(words) > 0 || q.file != "":
		for _, name := range described {
			if cmd.Flags().Changed(name) {
				return usagef("--%s: the curl command or the file describes the request already: remove the flag", name)
			}
		}
	}
	if len(words) > 0 {
		return q.readCurl(words[1:], cmd.InOrStdin())
	}
	var err error
	if strings.Contains(q.path, "://") && !strings.HasPrefix(q.path, "/") {
		note(cmd, "--path is sent unchanged: for a URL, use --url")
	}
	if q.content, err = readBody(q.body, cmd.InOrStdin()); err != nil || q.url == "" {
		return err
	}
	if cmd.Flags().Changed("path") || cmd.Flags().Changed("host") {
		return usagef("give --url, or --path and --host")
	}
	u, ok := cutURL(q.url)
	if !ok {
		return usagef("--url %q: want a URL such as https://api.example.com/v1/reports", q.url)
	}
	q.scheme, q.host, q.path = u.scheme, u.host, u.target
	return nil
}

// location is the unchanged parts of a URL.
type location struct{ scheme, user, host, target string }

// cutURL cuts a URL as clients do. It does not change the path, and drops the fragment.
func cutURL(s string) (location, bool) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme == "" {
		return location{}, false
	}
	rest, _, _ = strings.Cut(rest, "#")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	u := location{scheme: strings.ToLower(scheme), host: rest[:end], target: rest[end:]}
	if at := strings.LastIndexByte(u.host, '@'); at >= 0 {
		u.user, u.host = u.host[:at], u.host[at+1:]
	}
	if !strings.HasPrefix(u.target, "/") {
		u.target = "/" + u.target
	}
	return u, u.host != ""
}

// question returns the request in the form that Envoy sends.
func (q *question) question(stdin io.Reader) (*admin.Question, error) {
	out := &admin.Question{Key: q.key, Account: q.account, Profile: q.profile}
	var err error
	switch q.file {
	case "":
		out.CheckRequest, err = q.checkRequest()
		out.Method, out.Path, out.Host = []byte(q.method), []byte(q.path), []byte(q.host)
	case "-":
		out.CheckRequest, err = io.ReadAll(stdin)
	default:
		out.CheckRequest, err = os.ReadFile(q.file)
	}
	if err == nil && !json.Valid(out.CheckRequest) {
		err = usagef("--request %q: want a CheckRequest as JSON", q.file)
	}
	return out, err
}

// header is a header of a CheckRequest. JSON has its value in base64.
type header struct {
	Key   string `json:"key"`
	Value []byte `json:"rawValue"`
}

func (q *question) checkRequest() (json.RawMessage, error) {
	headers, err := q.headerList()
	if err != nil {
		return nil, err
	}
	extensions, err := pairs("context", q.context)
	if err != nil {
		return nil, err
	}
	scheme := q.scheme
	if scheme == "" {
		scheme = "http"
	}
	http := map[string]any{"scheme": scheme, "protocol": "HTTP/1.1", "headerMap": map[string]any{"headers": headers}}
	switch {
	case len(q.content) == 0:
	case utf8.Valid(q.content):
		http["body"], http["size"] = string(q.content), strconv.Itoa(len(q.content))
	default:
		http["rawBody"], http["size"] = q.content, strconv.Itoa(len(q.content))
	}
	return json.Marshal(map[string]any{"attributes": map[string]any{
		"contextExtensions": extensions, "request": map[string]any{"http": http},
	}})
}

// headerList returns the headers that Envoy receives: those given, and those that HTTP adds.
func (q *question) headerList() ([]header, error) {
	var out []header
	add := func(name, value string) { out = append(out, header{strings.ToLower(name), []byte(value)}) }
	add(":method", q.method)
	add(":path", q.path)
	add(":authority", q.host)
	length := false
	for _, h := range q.headers {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, usagef("--header %q: want 'name: value'", h)
		}
		length = length || strings.EqualFold(name, "content-length")
		add(name, strings.Trim(value, " \t"))
	}
	if len(q.content) > 0 && !length {
		add("content-length", strconv.Itoa(len(q.content)))
	}
	if q.token != "" {
		add("authorization", "Bearer "+strings.TrimSpace(q.token))
	}
	return out, nil
}

// readBody returns a body, or the content of the file named after an @.
func readBody(s string, stdin io.Reader) ([]byte, error) {
	name, isFile := strings.CutPrefix(s, "@")
	switch {
	case !isFile:
		return []byte(s), nil
	case name == "-":
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}

// showDecision prints the record of a decision. The id may be copied from the instance in the body of a denial.
func (c *cli) showDecision(cmd *cobra.Command, id string) error {
	if urn, ok := strings.CutPrefix(id, "urn:uuid:"); ok {
		id, _, _ = strings.Cut(urn, "?=")
	}
	var raw json.RawMessage
	if err := c.do(cmd, "GET", admin.Path("decisions", id), nil, &raw); err != nil {
		return err
	}
	return c.show(cmd, raw, func(t *table) {
		var d admin.Decision
		if json.Unmarshal(raw, &d) == nil {
			t.line(outcome(d.Allowed, d.Status, string(d.Reason)))
		}
		fields(t, raw)
	})
}

// fields prints the members of a JSON object in their order.
func fields(t *table, raw []byte) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil {
		return
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return
		}
		text := string(value)
		if s := ""; json.Unmarshal(value, &s) == nil {
			text = s
		}
		t.field(strings.ReplaceAll(fmt.Sprint(name), "_", " "), text)
	}
}

func outcome(allowed bool, status int, reason string) string {
	if allowed {
		return "allowed"
	}
	return fmt.Sprintf("denied: %d %s", status, reason)
}

// explain prints the decision first, then why, then the remedy.
func explain(t *table, e *admin.Explanation, all bool) {
	t.line(outcome(e.Allowed, e.Status, e.Reason))
	for _, name := range slices.Sorted(maps.Keys(e.Charge)) {
		t.field("charge", fmt.Sprintf("%d of %s", e.Charge[name], name))
	}
	t.field("title", e.Title)
	t.field("detail", e.Detail)
	t.field("fact", e.Fact)
	explainPath(t, e)
	if e.Rule != nil {
		t.field("rule", fmt.Sprintf("%s (%s:%d)", e.Rule.Name, e.Rule.File, e.Rule.Line))
	}
	t.field("cause", e.Cause)
	for _, text := range e.PolicyErrors {
		t.field("policy error", text)
	}
	t.field("remedy", e.Remedy)
	t.field("key", string(e.Key))
	t.field("token", string(e.Token))
	t.field("account", string(e.Account))
	for _, q := range e.Quota {
		t.field("quota", fmt.Sprintf("%s: %s, %d of %d left, resets %s", q.Name, q.State, q.Remaining, q.Limit, orNever(when(q.ResetsAt))))
	}
	t.field("policy", e.Policy)
	t.field("evaluator", e.Evaluator)
	if !all {
		return
	}
	t.line("")
	t.row("HELD", "RULE", "AT", "FACTS")
	for _, r := range e.Rules {
		var facts []string
		for _, f := range r.Facts {
			facts = append(facts, f.Ref+" = "+f.Value)
		}
		t.row(fmt.Sprint(r.Held), r.Name, fmt.Sprintf("%s:%d", r.File, r.Line), strings.Join(facts, ", "))
	}
}

// explainPath prints what is wrong with the path, or else the route that it has.
func explainPath(t *table, e *admin.Explanation) {
	if p := e.Path; p != nil && p.State != "ok" {
		t.field("path", p.State+": "+p.Fault)
		t.field("meaning", p.Meaning)
		return
	}
	r := e.Route
	if r == nil {
		return
	}
	switch {
	case r.State == "none":
		t.field("route", "none: no route matches")
	case r.State != "ok":
		t.field("route", r.State+": Envoy names a route that does not exist")
	case strings.Contains(r.Name, r.Template): // as in a name that was made of it
		t.field("route", r.Name)
	default:
		t.field("route", r.Name+" ("+r.Template+")")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Params)) {
		t.field("param", name+" = "+r.Params[name])
	}
}

func orNever(s string) string {
	if s == "" {
		return "never"
	}
	return s
}
