package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/server"
)

// serveHere runs a server in this process, with one account and a key. It returns its configuration, its gRPC address and the
// text of the key.
func serveHere(t *testing.T) (config.Config, string, string) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	cfg := config.Default()
	cfg.Listen = config.Listen{GRPC: "127.0.0.1:0", Admin: "127.0.0.1:0"}
	cfg.Shutdown, cfg.DataDir, cfg.Log.Decisions = config.Shutdown{}, filepath.Join(t.TempDir(), "data"), "off"
	cfg.Request.Timeout.Duration = 5 * time.Second
	s, err := server.New(t.Context(), cfg, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	tollkeeper(t, cfg, "account", "create", "acme", "--plan", "pro")
	var key admin.Key
	if err := json.Unmarshal(tollkeeper(t, cfg, "key", "create", "--account", "acme"), &key); err != nil {
		t.Fatal(err)
	}
	return cfg, s.GRPCAddr(), key.Key
}

// tollkeeper runs a command, which must succeed, and returns its JSON output.
func tollkeeper(t *testing.T, cfg config.Config, args ...string) []byte {
	t.Helper()
	cmd := newRoot()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SetArgs(append([]string{args[0]}, append([]string{"--data-dir", cfg.DataDir, "-o", "json"}, args[1:]...)...))
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return out.Bytes()
}

// bytesCodec sends messages unchanged. The codec of protobuf refuses texts that are not UTF-8.
type bytesCodec struct{}

func (bytesCodec) Name() string                    { return "proto" }
func (bytesCodec) Marshal(v any) ([]byte, error)   { return v.([]byte), nil }
func (bytesCodec) Unmarshal(b []byte, v any) error { *v.(*[]byte) = slices.Clone(b); return nil }

// checkOf returns a CheckRequest as Envoy would send it.
func checkOf(method, path, host string, headers ...[2]string) []byte {
	field := func(b []byte, n protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
	}
	var list []byte
	for _, h := range append([][2]string{{":method", method}, {":path", path}, {":authority", host}}, headers...) {
		list = field(list, 1, field(field(nil, 1, []byte(h[0])), 3, []byte(h[1])))
	}
	http := field(field(field(field(nil, 2, []byte(method)), 4, []byte(path)), 5, []byte(host)), 13, list)
	return field(nil, 1, field(nil, 4, field(nil, 2, http)))
}

// asker returns a function that sends checks to a server.
func asker(t *testing.T, address string) func([]byte) *authv3.CheckResponse {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func(message []byte) *authv3.CheckResponse {
		t.Helper()
		var answer []byte
		if err := conn.Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, message, &answer); err != nil {
			t.Fatal(err)
		}
		var out authv3.CheckResponse
		if err := proto.Unmarshal(answer, &out); err != nil {
			t.Fatal(err)
		}
		return &out
	}
}

// hostilePaths returns the seeds of the fuzz tests, random paths, and others that parsers of URLs and paths read differently.
func hostilePaths() []string {
	paths := []string{
		"/open", "//open", "/open?x=%zz", "/%6fpen", "/closed", "/a%2f..%2fopen", "/%ff", "/v1/reports/7", "//v1/reports//7", "//v1//reports/7",
		"///v1/reports", "/v1/reports/7?x=1#y", "/v1/reports#/../x", "", "/", "*", "v1/reports", "?", "/?", "/??", "#", "https://h/v1/x",
		"https:///v1/x", "//user@host/v1/x", "//[::1]/x", "//%zz/x", "/a b", "/a\tb", "/a\x00b", "/a\xffb", "/a\xc3", "\xff", "/é", "/a;b=c", "/..;/x",
		"/v1/./reports", "/v1/../reports", "/v1/%2e%2e/reports", "/v1\\reports", "/%", "/%2", "/%252e", "/v1/reports/", "/v1/render?a=b;c=d", "/-H", "--key",
		"@file", "@-", "/x:y", "1:2", "/" + strings.Repeat("a/", 500),
	}
	const alphabet = "//..%%;?#\\ \t\x00\xff\xc3\xa9:@[]aev125fF=&+-"
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		b := make([]byte, random.IntN(12))
		for i := range b {
			b[i] = alphabet[random.IntN(len(alphabet))]
		}
		paths = append(paths, "/"+string(b), string(b))
	}
	return paths
}

// TestExplain_DecidesEveryPathAsACheckDoes compares explain on the command line with a check over gRPC.
func TestExplain_DecidesEveryPathAsACheckDoes(t *testing.T) {
	cfg, address, key := serveHere(t)
	ask := asker(t, address)
	outcomes := make(map[string]int)
	for _, path := range hostilePaths() {
		checked := ask(checkOf("GET", path, "localhost", [2]string{"x-api-key", key}))
		want := "allowed"
		if checked.GetStatus().GetCode() != 0 {
			want = fmt.Sprint(int(checked.GetDeniedResponse().GetStatus().GetCode()))
			for _, h := range checked.GetDeniedResponse().GetHeaders() {
				if h.GetHeader().GetKey() == "x-authz-reason" {
					want += " " + h.GetHeader().GetValue()
				}
			}
		}
		var e admin.Explanation
		if err := json.Unmarshal(tollkeeper(t, cfg, "explain", "--path", path, "--key", key), &e); err != nil {
			t.Fatal(err)
		}
		got := "allowed"
		if !e.Allowed {
			got = fmt.Sprint(e.Status, " ", e.Reason)
		}
		if got != want {
			t.Errorf("%q: explained as %s, checked as %s", path, got, want)
		}
		outcomes[want]++
	}
	if len(outcomes) < 3 || outcomes["allowed"] < 10 {
		t.Errorf("the paths have too few outcomes: %v", outcomes)
	}
}

// TestExplain_ShowsADecisionByEachOfItsIDs finds a denial by its id, and by the id of its request.
func TestExplain_ShowsADecisionByEachOfItsIDs(t *testing.T) {
	cfg, address, _ := serveHere(t)
	denied := asker(t, address)(checkOf("GET", "/v1/x", "api.example.com", [2]string{"x-request-id", "from-a-report"}))
	id := ""
	for _, h := range denied.GetDeniedResponse().GetHeaders() {
		if h.GetHeader().GetKey() == "x-authz-decision-id" {
			id = h.GetHeader().GetValue()
		}
	}
	for _, by := range []string{id, "urn:uuid:" + id + "?=x-request-id=from-a-report", "from-a-report"} {
		var d admin.Decision
		if err := json.Unmarshal(tollkeeper(t, cfg, "explain", "--decision", by), &d); err != nil || d.DecisionID != id || d.Reason != "key_missing" {
			t.Errorf("by %q: %v, %+v", by, err, d)
		}
		cmd := newRoot()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs([]string{"explain", "--data-dir", cfg.DataDir, "--decision", by})
		if err := cmd.ExecuteContext(t.Context()); err != nil || !strings.HasPrefix(out.String(), "denied: 403 key_missing\n") || !strings.Contains(out.String(), "api.example.com") {
			t.Errorf("by %q: %v, printed\n%s", by, err, &out)
		}
	}
}

// TestExplain_ShowsTheRouteOfADecision, or what was wrong with its path.
func TestExplain_ShowsTheRouteOfADecision(t *testing.T) {
	cfg, address, _ := serveHere(t)
	ask := asker(t, address)
	for id, c := range map[string]struct{ path, want string }{
		"plain": {"/v1/render", "route render"}, "odd": {"/v1/render;x", "path fault matrix_parameter"},
	} {
		ask(checkOf("GET", c.path, "api.example.com", [2]string{"x-request-id", id}))
		cmd := newRoot()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs([]string{"explain", "--data-dir", cfg.DataDir, "--decision", id})
		err := cmd.ExecuteContext(t.Context())
		if text := strings.Join(strings.Fields(out.String()), " "); err != nil || !strings.Contains(text, " "+c.want+" ") {
			t.Errorf("%s: %v, printed\n%s", c.path, err, &out)
		}
	}
}

// TestCurl_IsReadAsCurlSendsIt compares the request read from a curl command with the one that curl sends.
func TestCurl_IsReadAsCurlSendsIt(t *testing.T) {
	for command, want := range map[string]string{
		"http://h/a":                   "GET http h /a|",
		"h/a?b=c#d":                    "GET http h /a?b=c|",
		"https://h":                    "GET https h /|",
		"https://h:443/":               "GET https h /|",
		"https://h:8443?x":             "GET https h:8443 /?x|",
		"http://h//v1//a/":             "GET http h //v1//a/|",
		"http://h/a/../b/./c":          "GET http h /b/c|",
		"http://h/a/b/..":              "GET http h /a/|",
		"--path-as-is http://h/a/../b": "GET http h /a/../b|",
		"-I http://h/":                 "HEAD http h /|",
		"-d a=1 -d b=2 http://h/":      "POST http h /|a=1&b=2",
		"-XPUT -d a=1 http://h/":       "PUT http h /|a=1",
		"-G -d a=1 --data-urlencode b=x&y http://h/?z": "GET http h /?z&a=1&b=x%26y|",
		"--data-raw @a http://h/":                      "POST http h /|@a",
		"--json {} http://h/":                          "POST http h /|{}",
		"-sSfLo out http://h/":                         "GET http h /|",
	} {
		var q question
		q.method = "GET"
		if err := q.readCurl(strings.Fields(command), strings.NewReader("")); err != nil {
			t.Errorf("%s: %v", command, err)
			continue
		}
		if got := fmt.Sprintf("%s %s %s %s|%s", q.method, q.scheme, q.host, q.path, q.content); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", command, got, want)
		}
	}
	headers := map[string]string{
		"http://h/":                             "user-agent: curl/8, accept: */*",
		"-H a:b -H Accept: http://h/":           "a:b, user-agent: curl/8",
		"-u me:pw http://h/":                    "authorization: Basic bWU6cHc=, user-agent: curl/8, accept: */*",
		"-u me:pw -H Authorization:x http://h/": "Authorization:x, user-agent: curl/8, accept: */*",
		"http://me:pw@h/":                       "authorization: Basic bWU6cHc=, user-agent: curl/8, accept: */*",
		"-d x http://h/":                        "user-agent: curl/8, accept: */*, content-type: application/x-www-form-urlencoded",
		"--json {} http://h/":                   "user-agent: curl/8, accept: application/json, content-type: application/json",
		"-b a=b --oauth2-bearer t http://h/":    "cookie: a=b, authorization: Bearer t, user-agent: curl/8, accept: */*",
	}
	for command, want := range headers {
		q := question{method: "GET"}
		if err := q.readCurl(strings.Fields(command), strings.NewReader("")); err != nil || strings.Join(q.headers, ", ") != want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", command, err, strings.Join(q.headers, ", "), want)
		}
	}
	for _, command := range []string{"", "-X", "http://h/ http://i/", "--no-such-flag http://h/", "-F a=b http://h/", "-b jar.txt http://h/", "-d @/does/not/exist http://h/"} {
		var q question
		if err := q.readCurl(strings.Fields(command), strings.NewReader("")); err == nil {
			t.Errorf("%q is accepted", command)
		}
	}
}
