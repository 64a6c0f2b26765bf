package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/rego"
	"google.golang.org/protobuf/proto"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

func TestKeySet_SmallerBeginsLarger(t *testing.T) {
	keys := newKeySet(250)
	if keys.len() != 250 || !bytes.Equal(keys[:10*keyLen], newKeySet(10)) {
		t.Fatal("a smaller set does not begin a larger one")
	}
	form := regexp.MustCompile(`^tk_live_[0-9A-Za-z]{36}$`)
	seen := make(map[string]bool)
	for i := range keys.len() {
		text := string(keys.text(i))
		if !form.MatchString(text) || seen[text] {
			t.Fatalf("key %d is %q", i, text)
		}
		seen[text] = true
	}
}

func TestKeySet_ForgedKeys(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		if key := unknownKey(nil, rnd); !apikey.WellFormed(string(key)) {
			t.Errorf("%s is not like a key", key)
		}
		if key := garbageKey(nil, rnd); apikey.WellFormed(string(key)) || len(key) != keyLen {
			t.Errorf("%s is like a key", key)
		}
	}
}

func TestKeySet_ImportFile(t *testing.T) {
	var b bytes.Buffer
	if err := newKeySet(250).write(&b, plan); err != nil {
		t.Fatal(err)
	}
	accounts := make(map[string]int)
	for line := range bytes.Lines(b.Bytes()) {
		var l struct {
			SHA256, Account, Plan string
			Scopes                []string
		}
		if err := json.Unmarshal(line, &l); err != nil || len(l.SHA256) != 64 || l.Plan != plan || !slices.Equal(l.Scopes, []string{ordersScope}) {
			t.Fatalf("%s: %v", line, err)
		}
		accounts[l.Account]++
	}
	if len(accounts) != 3 || accounts["account-000000"] != keysPerAccount || accounts["account-000002"] != 50 {
		t.Errorf("keys by account: %v", accounts)
	}
}

func TestQuestion_Renew(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	l := loadOf(newKeySet(20), 20).to(append(fewPaths[:len(fewPaths):len(fewPaths)], idPaths...))
	requests, err := l.requests()
	if err != nil {
		t.Fatal(err)
	}
	ids, ports, paths := make(map[string]bool), make(map[uint32]bool), make(map[string]bool)
	for i := range 1000 {
		q := requests[i%len(requests)]
		now := time.Unix(1_700_000_000+int64(i), rnd.Int64N(1e9))
		key := l.next(nil, rnd)
		q.renew(rnd, now, key)
		var got authv3.CheckRequest
		if err := proto.Unmarshal(q.wire, &got); err != nil {
			t.Fatal(err)
		}
		a := got.GetAttributes()
		h := a.GetRequest().GetHttp()
		target := l.targets[i%len(l.targets)]
		before, after, hasID := strings.Cut(target.path, idMark)
		id := strings.TrimSuffix(strings.TrimPrefix(h.GetPath(), before), after)
		if hasID {
			if paths[h.GetPath()] || len(id) != target.shape.length || strings.Trim(id, base62+"-_") != "" {
				t.Fatalf("%s again, or not of %s", h.GetPath(), target.path)
			}
			paths[h.GetPath()] = true
		}
		want := checkRequest(target.method, strings.Replace(target.path, idMark, id, 1), string(key))
		for _, f := range h.GetHeaderMap().GetHeaders() {
			if f.GetKey() == "x-request-id" {
				f.RawValue = []byte(blankRequestID)
			}
		}
		ids[h.GetId()], ports[a.GetSource().GetAddress().GetSocketAddress().GetPortValue()] = true, true
		if at := a.GetRequest().GetTime(); at.GetSeconds() != now.Unix() || at.CheckValid() != nil {
			t.Fatalf("time %v, want %v", at, now)
		}
		w := want.GetAttributes()
		h.Id, a.Request.Time, a.Source = w.GetRequest().GetHttp().GetId(), w.GetRequest().GetTime(), w.GetSource()
		if !proto.Equal(&got, want) {
			t.Fatalf("got %v\nwant %v", &got, want)
		}
	}
	if len(ids) != 1000 || len(ports) < 900 {
		t.Errorf("%d ids and %d ports in 1000 requests", len(ids), len(ports))
	}
}

func TestAnswer_Judge(t *testing.T) {
	for name, tc := range map[string]struct {
		resp *authv3.CheckResponse
		want string
	}{
		"allow":  {allow(), ""},
		"empty":  {&authv3.CheckResponse{}, ""},
		"denied": {deny("key_unknown"), "403 key_unknown"},
	} {
		wire, err := proto.Marshal(tc.resp)
		if err != nil {
			t.Fatal(err)
		}
		if err := new(answer).judge(wire); err == nil != (tc.want == "") || err != nil && err.Error() != tc.want {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if new(answer).judge([]byte{0xff}) == nil {
		t.Error("garbage counts as an allow")
	}
	for reason, tc := range map[string]struct {
		resp *authv3.CheckResponse
		want string
	}{
		"key_unknown":   {deny("key_unknown"), ""},
		"key_malformed": {deny("key_unknown"), "403 key_unknown"},
		"key_revoked":   {allow(), "allowed"},
	} {
		wire, err := proto.Marshal(tc.resp)
		if err != nil {
			t.Fatal(err)
		}
		a := answer{reason: []byte(reason)}
		if err := a.judge(wire); err == nil != (tc.want == "") || err != nil && err.Error() != tc.want {
			t.Errorf("%s is expected: %v, want %q", reason, err, tc.want)
		}
	}
}

// TestOPA_AllowsAndDenies evaluates the current policies, whose input may have changed.
func TestOPA_AllowsAndDenies(t *testing.T) {
	o, err := newOPA(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	allowsAll(t, o, loadOf(newKeySet(smallSet), smallSet))
	o.input = func(req *authv3.CheckRequest) (rego.EvalOption, error) {
		input, err := inputOf(req)
		input["key"] = map[string]any{"status": "revoked"}
		return rego.EvalInput(input), err
	}
	if err := asked(t, o, load{keys: newKeySet(1), callers: 1, targets: onePath}); err == nil {
		t.Error("a revoked key is allowed")
	}
}

// TestKeysAsData_AllowsAndDenies also asks for the route that wants a scope.
func TestKeysAsData_AllowsAndDenies(t *testing.T) {
	o, err := newKeysAsData(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, targets := range [][]target{onePath, idPaths} {
		allowsAll(t, o, loadOf(newKeySet(smallSet), smallSet).to(targets).mapped())
	}
	unknown := load{forge: unknownKey, targets: onePath, headersAsMap: true}
	if err := asked(t, o, unknown); err == nil {
		t.Error("an unknown key is allowed")
	}
}

// allowsAll checks that an authorizer allows every target of a load.
func allowsAll(t *testing.T, s authv3.AuthorizationServer, l load) {
	t.Helper()
	for _, one := range l.targets {
		if err := asked(t, s, l.to([]target{one})); err != nil {
			t.Errorf("%s %s: %v", one.method, one.path, err)
		}
	}
}

// asked is the judgement of an answer to a check of the first target.
func asked(t *testing.T, s authv3.AuthorizationServer, l load) error {
	t.Helper()
	requests, err := l.requests()
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	requests[0].renew(rnd, time.Now(), l.next(nil, rnd))
	var req authv3.CheckRequest
	if err := proto.Unmarshal(requests[0].wire, &req); err != nil {
		t.Fatal(err)
	}
	resp, err := s.Check(t.Context(), &req)
	if err != nil {
		t.Fatal(err)
	}
	wire, err := proto.Marshal(resp)
	if err != nil {
		t.Fatal(err)
	}
	return new(answer).judge(wire)
}

func TestHistogram_Quantiles(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var a, b histogram
	var all []time.Duration
	for i := range 20_000 {
		d := time.Duration(1 << rnd.Uint64N(40))
		d += time.Duration(rnd.Int64N(int64(d)))
		all = append(all, d)
		if i%2 == 0 {
			a.add(d)
		} else {
			b.add(d)
		}
	}
	a.merge(&b)
	slices.Sort(all)
	for _, q := range []float64{0, .01, .5, .9, .99, .999, 1} {
		want := all[max(0, int(q*float64(len(all)))-1)]
		got := a.quantile(q)
		if diff := float64(got-want) / float64(want); diff < -.01 || diff > .01 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if new(histogram).quantile(.5) != 0 {
		t.Error("the median of no durations is not 0")
	}
	a.add(-1)
	a.add(1<<63 - 1) // the longest duration does not panic
}

func TestStatistics_MedianAndRatio(t *testing.T) {
	if m := medianOf([]float64{5, 1, 3}); m != 3 {
		t.Errorf("median of 5, 1, 3 is %v", m)
	}
	if m := medianOf([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median of 4, 1, 3, 2 is %v", m)
	}
	itself := func(f float64) float64 { return f }
	if r := ratio([]float64{2, 30, 4}, []float64{1, 10, 0}, itself); r != 2.5 {
		t.Errorf("ratio is %v, want the middle of 2 and 3", r)
	}
	if r := ratio([]float64{2}, nil, itself); r != 0 || times(r) != "-" {
		t.Errorf("ratio to nothing is %v", r)
	}
}

// TestDrive_CountsDenials counts denials apart, and gives up when there are many or something breaks.
func TestDrive_CountsDenials(t *testing.T) {
	s := span{warmUp: time.Millisecond, measured: 50 * time.Millisecond}
	drives := func(every int, err error) (*measurement, error) {
		n := 0
		return drive(t.Context(), s, []call{func(context.Context, time.Time) error {
			if n++; n%every == 0 {
				return err
			}
			return nil
		}}, func() error { return nil })
	}
	got, err := drives(150, denial("403 x"))
	if err != nil || got.calls == 0 || got.denied == 0 || got.denial != "403 x" || got.took < s.measured {
		t.Errorf("a few denials: %v", err)
	}
	if _, err := drives(2, denial("403 x")); !errors.Is(err, denial("403 x")) {
		t.Errorf("many denials: %v", err)
	}
	broken := errors.New("broken")
	if _, err := drives(2, broken); !errors.Is(err, broken) {
		t.Errorf("an error: %v", err)
	}
}

func TestProc_Parses(t *testing.T) {
	d, err := parseStat([]byte("7 (a) b) S 1 7 7 0 -1 4194304 108 0 0 0 150 25 0 0 20 0 1 0 377594 2998272 448"))
	if err != nil || d != 1750*time.Millisecond {
		t.Errorf("stat: %v, %v", d, err)
	}
	d, err = parseSchedstat([]byte("2021775597 221200 9\n"))
	if err != nil || d != 2021775597 {
		t.Errorf("schedstat: %v, %v", d, err)
	}
	if _, err := parseStat([]byte("nonsense")); err == nil {
		t.Error("nonsense was parsed as a stat file")
	}
	status := []byte("Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t    1234 kB\n")
	if v, err := field(status, "VmRSS"); err != nil || v != "1234 kB" {
		t.Errorf("VmRSS: %q, %v", v, err)
	}
	if _, err := field(status, "VmRS"); err == nil {
		t.Error("a missing field was found")
	}
}

func TestWithoutAuthorizer_RemovesTheFilter(t *testing.T) {
	config, err := os.ReadFile("../envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	bare, err := withoutAuthorizer(config)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(bare, []byte("failure_mode_allow")) || !bytes.Contains(bare, []byte("- name: envoy.filters.http.router\n")) {
		t.Error("the wrong part was removed")
	}
	if _, err := withoutAuthorizer(bare); err == nil {
		t.Error("a filter that is not there was removed")
	}
}

func TestFlags_QuickAndOnly(t *testing.T) {
	o, _, err := parseFlags([]string{"-quick", "-keys", "500"})
	if err != nil || o.rounds != 1 || o.seconds != 1 || o.keys != 500 || !o.envoy {
		t.Errorf("%+v, %v", o, err)
	}
	list, err := chosen(rivalSpecs(500), "noop,tollkeeper-large")
	if err != nil || len(list) != 2 || list[1].label != "… 500 keys and revocations, as many callers" {
		t.Errorf("%d rivals, %v", len(list), err)
	}
	if _, err := chosen(rivalSpecs(500), "nope"); err == nil {
		t.Error("an unknown rival was chosen")
	}
}

func TestReport_Formats(t *testing.T) {
	one := func(calls int, cpu time.Duration) *sample {
		s := &sample{measurement: &measurement{calls: calls, took: time.Second}, cpu: cpu, memory: 25_000_000}
		s.latency.add(time.Millisecond)
		return s
	}
	r := report{
		date: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), machine: "a machine", options: options{rounds: 1, seconds: 1},
		direct: []results{
			{rival: &rival{name: "noop", label: "noop"}, rounds: []*sample{one(40_000, time.Second)}},
			{rival: &rival{name: "tollkeeper", label: "Tollkeeper"}, rounds: []*sample{one(20_000, time.Second)}},
		},
	}
	var text, markdown bytes.Buffer
	table := r.directTable()
	if err := errors.Join(table.text(&text), r.markdown(&markdown)); err != nil {
		t.Fatal(err)
	}
	if want := "Tollkeeper     20,000         50.0 µs     2.00×     1.00×   1.00 ms   1.00 ms   1.00 ms   25 MB   0.0 s           -\n"; !strings.Contains(text.String(), want) {
		t.Errorf("no line %q in\n%s", want, &text)
	}
	if want := "| Tollkeeper | 20,000 | 50.0 µs | 2.00× |"; !strings.Contains(markdown.String(), want) {
		t.Errorf("no row %q in\n%s", want, &markdown)
	}
	var svg bytes.Buffer
	if err := drawBars(&svg, "CPU & more", r.bars()); err != nil {
		t.Fatal(err)
	}
	for dec := xml.NewDecoder(&svg); ; {
		_, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
