package main

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tollkeeper-authz/tollkeeper/authz/token/tokentest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tollkeeper": func() { os.Exit(run(os.Args[1:])) }})
}

// TestScripts runs the transcripts of testdata/script against a real server.
func TestScripts(t *testing.T) {
	commands := storeCommands(t)
	maps.Copy(commands, map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"await":      awaitFile,
		"setjson":    setFromJSON,
		"setaddress": setAddress,
		"oneline":    oneLine,
		"damage":     damage,
		"issuer":     startIssuer,
		"sign":       sign,
		"envoyadmin": startEnvoyAdmin,
		"charge":     charge,
		"refused":    awaitRefused,
		"charging":   startCharging,
		"charged":    awaitCharged,
		"awaitlines": awaitLines,
		"awaitspan":  awaitSpan,
		"wantspent":  wantSpent,
	})
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, ".config"))
			env.Setenv("TOLLKEEPER_LISTEN_GRPC", "127.0.0.1:0")
			env.Setenv("TOLLKEEPER_LISTEN_ADMIN", "127.0.0.1:0")
			env.Setenv("TOLLKEEPER_LOG_DECISIONS", "off")
			env.Setenv("TOLLKEEPER_SHUTDOWN_DELAY", "0s") // there is no load balancer to wait for
			env.Setenv("TZ", "UTC")
			return nil
		},
		Cmds: commands,
	})
}

// setAddress sets a variable to the host and port in the address file of a server: setaddress VAR file.
func setAddress(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(strings.TrimPrefix(ts.ReadFile(args[1]), "http://")))
}

// awaitFile waits until a file exists, or with ! until it does not: await file. A server writes its address when it has
// started.
func awaitFile(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); (err == nil) != neg {
			return
		}
	}
	ts.Fatalf("%s: gave up waiting", args[0])
}

// setFromJSON sets a variable to a text member of the JSON object on standard output: setjson VAR member.
func setFromJSON(ts *testscript.TestScript, _ bool, args []string) {
	_, rest, ok := strings.Cut(ts.ReadFile("stdout"), fmt.Sprintf("%q: \"", args[1]))
	value, _, ok2 := strings.Cut(rest, `"`)
	if !ok || !ok2 {
		ts.Fatalf("no %q in the output", args[1])
	}
	ts.Setenv(args[0], value)
}

// issuers holds the issuers of all running scripts, by URL.
var issuers sync.Map

// startIssuer runs an issuer of tokens until the script ends, and sets a variable to its URL: issuer VAR.
func startIssuer(ts *testscript.TestScript, _ bool, args []string) {
	i := tokentest.New()
	ts.Defer(i.Close)
	issuers.Store(i.URL, i)
	ts.Setenv(args[0], i.URL)
}

// sign sets a variable to a token of an issuer: sign VAR issuer name=value...
func sign(ts *testscript.TestScript, _ bool, args []string) {
	claims := make(map[string]any)
	for _, pair := range args[2:] {
		name, value, _ := strings.Cut(pair, "=")
		claims[name] = value
	}
	i, _ := issuers.Load(args[1])
	ts.Setenv(args[0], i.(*tokentest.Issuer).Token(claims))
}

// startEnvoyAdmin runs an admin port of Envoy until the script ends, and sets a variable to its URL: envoyadmin VAR dir. The
// directory has server_info and config_dump.
func startEnvoyAdmin(ts *testscript.TestScript, _ bool, args []string) {
	s := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[1]))))
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL)
}

// damage replaces a text in a file with another of the same length, everywhere: damage FILE old new. \xNN is a byte.
func damage(ts *testscript.TestScript, _ bool, args []string) {
	before := ts.ReadFile(args[0])
	escaped := regexp.MustCompile(`\\x[0-9a-f]{2}`)
	raw := func(text string) string {
		return escaped.ReplaceAllStringFunc(text, func(x string) string {
			b, err := hex.DecodeString(x[2:])
			ts.Check(err)
			return string(b)
		})
	}
	after := strings.ReplaceAll(before, raw(args[1]), raw(args[2]))
	if after == before || len(after) != len(before) {
		ts.Fatalf("%s: cannot replace %q by %q", args[0], args[1], args[2])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(after), 0o600))
}

// oneLine wants exactly one line on standard error.
func oneLine(ts *testscript.TestScript, _ bool, _ []string) {
	if text := ts.ReadFile("stderr"); strings.Count(text, "\n") != 1 {
		ts.Fatalf("want one line on standard error, got:\n%s", text)
	}
}
