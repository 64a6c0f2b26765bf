package envoy

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/tollkeeper-authz/tollkeeper/envoy/harness"
)

// everywhere imports one key into both Tollkeepers, which have separate stores.
func (e *edge) everywhere(plan string) string {
	e.t.Helper()
	text, err := json.Marshal(map[string]string{"key": "key-at-both-of-them", "account": "acme", "plan": plan})
	if err != nil {
		e.t.Fatal(err)
	}
	file := filepath.Join(e.t.TempDir(), "keys.jsonl")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		e.t.Fatal(err)
	}
	for _, tk := range []*harness.Tollkeeper{e.tk, e.other} {
		if _, err := tk.CLI(e.t.Context(), "key", "import", file); err != nil {
			e.t.Fatal(err)
		}
	}
	return "key-at-both-of-them"
}

// healthy returns how many Tollkeepers Envoy considers healthy.
func (s *stack) healthy() int64 {
	s.t.Helper()
	stats, err := s.proxy.Stats(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return stats["cluster.tollkeeper.membership_healthy"]
}

// TestRestart_LosesNoRequest restarts two Tollkeepers in turn under load. No request fails: with a delay Envoy stops asking
// the leaving one before it ends, and without a delay Envoy retries at the other one.
func TestRestart_LosesNoRequest(t *testing.T) {
	for name, delay := range map[string]time.Duration{"with a delay": 2500 * time.Millisecond, "at once": 0} {
		t.Run(name, func(t *testing.T) {
			for round := 1; ; round++ {
				e := newEdge(t, edgeOptions{two: true, tollkeeper: harness.TollkeeperOptions{Delay: delay}})
				if statuses := e.restartBoth(delay > 0); !e.tooBusy(statuses, round) {
					e.wantEachChargedOnce(int64(statuses[http.StatusOK]))
					return
				}
			}
		})
	}
}

// restartBoth restarts both Tollkeepers under load, and returns how many answers had each status.
func (e *edge) restartBoth(delayed bool) map[int]int {
	e.t.Helper()
	key := e.everywhere("large")
	await(e.t, func() bool { return e.healthy() == 2 })
	load := e.underLoad(4, "x-api-key", key)
	more := func() {
		mark := load.answered(http.StatusOK)
		await(e.t, func() bool { return load.answered(http.StatusOK) > mark+100 })
	}
	for _, tk := range []*harness.Tollkeeper{e.tk, e.other} {
		more()
		stopped := make(chan error, 1)
		go func() { stopped <- tk.Stop() }()
		if delayed {
			await(e.t, func() bool { return e.healthy() == 1 })
			select {
			case err := <-stopped:
				e.t.Errorf("it ended before Envoy saw that it leaves: %v", err)
			default:
			}
		}
		if err := <-stopped; err != nil {
			e.t.Error(err)
		}
		more()
		tk.SetDelay(0) // so that the end of the test does not wait
		if err := tk.Start(e.t.Context()); err != nil {
			e.t.Fatal(err)
		}
		await(e.t, func() bool { return e.healthy() == 2 })
	}
	return load.stop()
}

// tooBusy checks that all requests of a round were allowed. It returns true if the round has to be repeated because the
// machine was so busy that Tollkeeper did not run for 0.3 s, after which Envoy gives up.
func (s *stack) tooBusy(statuses map[int]int, round int) bool {
	s.t.Helper()
	stats, err := s.proxy.Stats(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	waited, refused := stats["cluster.tollkeeper.upstream_rq_timeout"], int64(statuses[http.StatusServiceUnavailable])
	if round < 3 && refused > 0 && refused <= waited && len(statuses) == 2 {
		s.t.Logf("round %d: too busy to answer all: %v", round, statuses)
		return true
	}
	if len(statuses) != 1 || statuses[http.StatusOK] < 100 {
		s.t.Errorf("answers by status: %v; %d checks timed out", statuses, waited)
	}
	return false
}

// wantEachChargedOnce checks that both Tollkeepers together charged each allowed request once, and lost no units.
func (e *edge) wantEachChargedOnce(allowed int64) {
	e.t.Helper()
	var spent int64
	first := e.tk
	for _, e.tk = range []*harness.Tollkeeper{first, e.other} {
		if err := e.tk.Restart(e.t.Context()); err != nil {
			e.t.Fatal(err)
		}
		b := e.balance("acme", "monthly")
		if spent += b.Spent; b.Stranded != 0 || len(b.Outstanding) != 0 {
			e.t.Errorf("units were not returned: %+v", b)
		}
	}
	e.tk = first
	if spent != allowed {
		e.t.Errorf("%d requests were allowed and %d charged", allowed, spent)
	}
}

// TestFailover_FromADeadTollkeeper kills one of two Tollkeepers, without health checks: retries alone answer every request.
func TestFailover_FromADeadTollkeeper(t *testing.T) {
	e := newEdge(t, edgeOptions{two: true, change: func(config string) string {
		before, rest, _ := strings.Cut(config, "    health_checks:\n")
		_, after, _ := strings.Cut(rest, "    load_assignment:\n")
		return before + "    load_assignment:\n" + after
	}})
	key := e.everywhere("large")
	e.other.Kill()
	for i := range 200 {
		if r := e.get("/", key); r.StatusCode != http.StatusOK {
			t.Fatalf("request %d: %d %s", i, r.StatusCode, r.body)
		}
	}
	stats, err := e.proxy.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := stats["cluster.tollkeeper.upstream_rq_retry_success"]; n == 0 {
		t.Error("Envoy never asked the dead Tollkeeper")
	}
}

// A hanging Tollkeeper costs the checks that it received. After about three of them Envoy asks only the other one, before
// the health check notices.
func TestFailover_FromAHangingTollkeeper(t *testing.T) {
	e := newEdge(t, edgeOptions{two: true})
	key := e.everywhere("large")
	await(t, func() bool { return e.healthy() == 2 })
	for range 20 { // so that there are connections to both
		e.get("/", key)
	}
	if err := e.other.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.other.Signal(syscall.SIGCONT) }()
	failed := 0
	for range 50 {
		switch r := e.get("/", key); r.StatusCode {
		case http.StatusOK:
		case http.StatusServiceUnavailable:
			failed++
		default:
			t.Fatalf("%d %s", r.StatusCode, r.body)
		}
	}
	if failed > 6 {
		t.Errorf("%d of 50 requests were denied, want at most 6", failed)
	}
}

// faults is a relay between Envoy and Tollkeeper that can lose the first check of a connection.
type faults struct {
	lose atomic.Int32 // how many more connections to lose
	how  func(client *net.TCPConn, first *http2.MetaHeadersFrame)
	lost atomic.Int32
}

// withFaults is a stack with such a relay.
func withFaults(t *testing.T, how func(*net.TCPConn, *http2.MetaHeadersFrame)) (*stack, *faults) {
	t.Helper()
	f := &faults{how: how}
	s := &stack{t: t, http: httpClient(t, false), Upstream: startUpstream(t)}
	s.tk = startTollkeeper(t, harness.TollkeeperOptions{Policies: ownPolicies(t)})
	at := relay(t, func(c net.Conn) { f.serve(c.(*net.TCPConn), s.tk.Address()) })
	addr, err := net.ResolveTCPAddr("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	s.proxy = startProxy(t, addr.Port, s.Port(), nil)
	s.addr = s.proxy.Addr()
	return s, f
}

// serve reads a connection up to its first request, then loses or forwards it. Envoy expects no answer before that.
func (f *faults) serve(client *net.TCPConn, server string) {
	var read bytes.Buffer
	from := io.TeeReader(client, &read)
	if _, err := io.ReadFull(from, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	frames := http2.NewFramer(io.Discard, from)
	frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := frames.ReadFrame()
		if err != nil {
			return
		}
		headers, ok := frame.(*http2.MetaHeadersFrame)
		if !ok {
			continue
		}
		if strings.HasSuffix(headers.PseudoValue("path"), "/Check") && !strings.Contains(headers.PseudoValue("path"), "Health") && f.lose.Add(-1) >= 0 {
			f.lost.Add(1)
			f.how(client, headers)
			return
		}
		break
	}
	up, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	if _, err := up.Write(read.Bytes()); err == nil {
		splice(client, up)
	}
}

// TestRetry_RepeatsARefusedCheck refuses a check by GOAWAY, as in a restart: Tollkeeper has not seen it. The client notices
// nothing, and is charged once.
func TestRetry_RepeatsARefusedCheck(t *testing.T) {
	s, f := withFaults(t, func(c *net.TCPConn, _ *http2.MetaHeadersFrame) {
		out := http2.NewFramer(c, nil)
		_ = out.WriteSettings()
		_ = out.WriteGoAway(0, http2.ErrCodeNo, nil)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	key := s.customer("acme", "hundred")
	f.lose.Store(1)
	r := s.get("/", key.Text)
	if limit := r.Header.Get("Ratelimit"); r.StatusCode != http.StatusOK || !strings.Contains(limit, "r=99") || f.lost.Load() != 1 {
		t.Errorf("%d, ratelimit %q, %d lost", r.StatusCode, limit, f.lost.Load())
	}
	if n := s.Count(); n != 1 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

// TestRetry_NeverRepeatsALostCheck resets the connection of a check, which Tollkeeper may have seen and charged. Envoy denies
// without asking again.
func TestRetry_NeverRepeatsALostCheck(t *testing.T) {
	s, f := withFaults(t, func(c *net.TCPConn, _ *http2.MetaHeadersFrame) { _ = c.SetLinger(0) })
	key := s.customer("acme", "hundred")
	f.lose.Store(1)
	if r := s.get("/", key.Text); r.StatusCode != http.StatusServiceUnavailable || s.Count() != 0 || f.lost.Load() != 1 {
		t.Errorf("%d, %d forwarded, %d lost", r.StatusCode, s.Count(), f.lost.Load())
	}
	if r := s.get("/", key.Text); r.StatusCode != http.StatusOK || !strings.Contains(r.Header.Get("Ratelimit"), "r=99") {
		t.Errorf("the next one: %d, ratelimit %q", r.StatusCode, r.Header.Get("Ratelimit"))
	}
}

// TestDisconnect_ChargesWhatWasServed has clients close their connections at once. Other clients are not affected, and each
// request that reaches the upstream is charged.
func TestDisconnect_ChargesWhatWasServed(t *testing.T) {
	s := newStack(t)
	key := s.customer("acme", "large")
	const gone = 200
	for i := range gone {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: edge.test\r\nx-api-key: "+key.Text+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			_ = c.(*net.TCPConn).SetLinger(0) // reset; the others close
		}
		_ = c.Close()
	}
	if r := s.get("/", key.Text); r.StatusCode != http.StatusOK {
		t.Errorf("a client that waits: %d", r.StatusCode)
	}
	if err := s.tk.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := s.balance("acme", "monthly")
	if served := int64(s.Count()); b.Spent < served || b.Spent > gone+1 || b.Stranded != 0 || len(b.Outstanding) != 0 {
		t.Errorf("%d of %d requests were served, and the ledger has %+v", served, gone+1, b)
	}
}
