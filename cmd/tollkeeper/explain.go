package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

// question is a request as it is described on the command line.
type question struct {
	method, path, host, key, token, file string
	headers, context                     []string
	rules                                bool
}

func (c *cli) explainCmd() *cobra.Command {
	var q question
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say why a request is allowed or denied",
		Long: `Ask the running server how it would decide a request, on the same path as a real one but
without charging anybody: the fact, the rule that decided, and what the caller can do.

  tollkeeper explain --path /v1/reports/7 --key tk_live_…
  tollkeeper explain --method POST --path /v1/render -H 'content-type: text/plain'
  tollkeeper explain --request check.json        a CheckRequest as JSON; - is standard input`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			raw, err := q.checkRequest(cmd.InOrStdin())
			if err != nil {
				return err
			}
			var e admin.Explanation
			if err := c.do(cmd, "POST", admin.Path("explain"), raw, &e); err != nil {
				return err
			}
			return c.show(cmd, e, func(t *table) { explain(t, &e, q.rules) })
		},
	}
	f := cmd.Flags()
	f.StringVarP(&q.method, "method", "X", "GET", "method")
	f.StringVar(&q.path, "path", "/", "path with its query, or a whole URL")
	f.StringVar(&q.host, "host", "localhost", "host")
	f.StringVar(&q.key, "key", "", "key, sent as x-api-key")
	f.StringVar(&q.token, "token", "", "bearer token, sent as Authorization")
	f.StringArrayVarP(&q.headers, "header", "H", nil, "'name: value' (again for more)")
	f.StringArrayVar(&q.context, "context", nil, "context extension of the route, name=value (again for more)")
	f.StringVar(&q.file, "request", "", "file with a CheckRequest as JSON, in place of all these")
	f.BoolVar(&q.rules, "rules", false, "list every rule that took part")
	return cmd
}

// checkRequest describes the question as Envoy would.
func (q *question) checkRequest(stdin io.Reader) (json.RawMessage, error) {
	switch q.file {
	case "":
	case "-":
		return io.ReadAll(stdin)
	default:
		return os.ReadFile(q.file)
	}
	if u, err := url.Parse(q.path); err == nil && u.Host != "" {
		q.host, q.path = u.Host, u.RequestURI()
	}
	if !strings.HasPrefix(q.path, "/") {
		return nil, usagef("--path %q: want a path that begins with /", q.path)
	}
	type header struct {
		Key   string `json:"key"`
		Value string `json:"rawValue"`
	}
	var headers []header
	add := func(name, value string) {
		headers = append(headers, header{strings.ToLower(name), base64.StdEncoding.EncodeToString([]byte(value))})
	}
	add(":method", q.method)
	add(":path", q.path)
	add(":authority", q.host)
	for _, h := range q.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, usagef("--header %q: want 'name: value'", h)
		}
		add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	if q.key != "" {
		add("x-api-key", q.key)
	}
	if q.token != "" {
		add("authorization", "Bearer "+strings.TrimSpace(q.token))
	}
	extensions, err := pairs("context", q.context)
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{"attributes": map[string]any{
		"contextExtensions": extensions,
		"request": map[string]any{"http": map[string]any{
			"method": q.method, "path": q.path, "host": q.host, "scheme": "http", "protocol": "HTTP/1.1",
			"headerMap": map[string]any{"headers": headers},
		}},
	}})
}

// explain prints the answer first, then why, then what to do.
func explain(t *table, e *admin.Explanation, all bool) {
	if e.Allowed {
		t.line("allowed")
		for name, units := range e.Charge {
			t.field("charge", fmt.Sprintf("%d of %s", units, name))
		}
	} else {
		t.line(fmt.Sprintf("denied: %d %s", e.Status, e.Reason))
		t.field("title", e.Title)
		t.field("detail", e.Detail)
		t.field("fact", e.Fact)
		if e.Rule != nil {
			t.field("rule", fmt.Sprintf("%s (%s:%d)", e.Rule.Name, e.Rule.File, e.Rule.Line))
		}
		t.field("cause", e.Cause)
		t.field("remedy", e.Remedy)
	}
	t.field("key", string(e.Key))
	t.field("token", string(e.Token))
	t.field("account", string(e.Account))
	for _, q := range e.Quota {
		t.field("quota", fmt.Sprintf("%s: %s, %d of %d left, resets %s", q.Name, q.State, q.Remaining, q.Limit, orNever(when(q.ResetsAt))))
	}
	t.field("policy", e.Policy)
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

func orNever(s string) string {
	if s == "" {
		return "never"
	}
	return s
}
