package harness

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func read(t *testing.T, l Layout) []byte {
	t.Helper()
	shipped, err := os.ReadFile(filepath.Join("..", l.File))
	if err != nil {
		t.Fatal(err)
	}
	return shipped
}

func TestLayout_RenderReplacesOnlyPlaces(t *testing.T) {
	same := map[string]Places{
		Loopback.File: {Listener: 10000, Admin: 9901, Upstream: 8080, Tollkeepers: []string{"127.0.0.1:9001"}},
		TLS.File:      {Listener: 10443, Admin: 9901, Upstream: 8080, Tollkeepers: []string{"10.0.0.11:9001", "10.0.0.12:9001"}, Dir: "/etc/envoy/"},
		Sidecar.File:  {Listener: 10000, Admin: 9901, Upstream: 8080, Tollkeepers: []string{"unix:/run/tollkeeper/tollkeeper.sock"}},
	}
	for _, l := range []Layout{Loopback, TLS, Sidecar} {
		shipped := read(t, l)
		out, err := l.Render(shipped, same[l.File])
		// Render always moves the listener to loopback.
		want := strings.NewReplacer("{address: 0.0.0.0, port_value: 10", "{address: 127.0.0.1, port_value: 10").Replace(string(shipped))
		if err != nil || string(out) != want {
			t.Errorf("%s: rendering the shipped places: %v, changed %v", l.File, err, string(out) != want)
		}
	}
	// The listener's new port is the shipped port of the upstream, and must not be replaced again.
	out, err := TLS.Render(read(t, TLS), Places{Listener: 8080, Admin: 2, Upstream: 4, Tollkeepers: []string{"127.0.0.1:3", "unix:/x"}, Dir: "/tmp/y/"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"port_value: 8080}", "port_value: 2}", "port_value: 3}", "port_value: 4}", "{pipe: {path: /x}}"} {
		if n := strings.Count(string(out), want); n != 1 {
			t.Errorf("%q occurs %d times, want once", want, n)
		}
	}
	if strings.Contains(string(out), "/etc/envoy/") || !strings.Contains(string(out), "path: /tmp/y/sds/") {
		t.Error("the folder was not replaced")
	}
}

func TestLayout_RenderRefusesOtherFiles(t *testing.T) {
	shipped := string(read(t, Loopback))
	places := Places{Tollkeepers: []string{"127.0.0.1:1"}}
	missing := strings.Replace(shipped, "port_value: 9001}", "port_value: 9101}", 1)
	if _, err := Loopback.Render([]byte(missing), places); err == nil {
		t.Error("a configuration without Tollkeeper's port was rendered")
	}
	twice := shipped + "\n# address: 127.0.0.1, port_value: 9901}"
	if _, err := Loopback.Render([]byte(twice), places); err == nil {
		t.Error("a configuration with two admin ports was rendered")
	}
	if _, err := TLS.Render(read(t, TLS), places); err == nil {
		t.Error("a configuration for two Tollkeepers was rendered with one")
	}
}

func TestFindEnvoy_SupportedVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"1.40.0": true, "1.41.2": true, "2.0.0": true, "1.40.0-dev": true, "1.39.9": false, "1.4.0": false, "0.99.0": false,
	} {
		if got := supported("\n/usr/bin/envoy  version: 9e55809/" + version + "/Clean/RELEASE/BoringSSL\n"); got != want {
			t.Errorf("%s: %v, want %v", version, got, want)
		}
	}
	if supported("envoy: command failed") || supported("") {
		t.Error("an output without a version counts as supported")
	}
}

func TestInstall_HappensOnce(t *testing.T) {
	final := filepath.Join(t.TempDir(), "envoy", "1.40.0")
	start := make(chan struct{})
	var fills atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			<-start
			path, err := installOnce(final, func(dir string) error {
				fills.Add(1)
				return writeBinary(dir, 0o755)
			})
			if err != nil {
				t.Error(err)
			} else if err := executable(path); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	before := fills.Load()
	if _, err := installOnce(final, func(string) error { return errors.New("installed again") }); err != nil || fills.Load() != before {
		t.Errorf("a later call: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(final))
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestInstall_FailureLeavesNothing(t *testing.T) {
	for name, fill := range map[string]func(dir string) error{
		"no network":     func(string) error { return errors.New("no network") },
		"empty package":  func(string) error { return nil },
		"not executable": func(dir string) error { return writeBinary(dir, 0o644) },
	} {
		final := filepath.Join(t.TempDir(), "envoy", "1.40.0")
		if path, err := installOnce(final, fill); err == nil {
			t.Errorf("%s: got %q", name, path)
		}
		if entries, err := os.ReadDir(filepath.Dir(final)); err != nil || len(entries) != 0 {
			t.Errorf("%s: left behind %v, %v", name, entries, err)
		}
	}
}

func writeBinary(dir string, mode os.FileMode) error {
	at := filepath.Join(dir, "envoy", "_bin")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(at, "envoy"), []byte("#!/bin/sh\n"), mode)
}

func TestFindEnvoy_PrefersTheEnvironment(t *testing.T) {
	dir := t.TempDir()
	if err := writeBinary(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(dir, "envoy", "_bin", "envoy")
	t.Setenv("ENVOY", want)
	if got, err := FindEnvoy(t.Context(), dir); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	t.Setenv("ENVOY", filepath.Join(dir, "nothing"))
	if got, err := FindEnvoy(t.Context(), dir); err == nil {
		t.Errorf("ENVOY names a missing file: got %q, want an error", got)
	}
}

func TestTail_KeepsTheEnd(t *testing.T) {
	var log tail
	for range 5 {
		if _, err := log.Write([]byte(strings.Repeat("x", keptLog))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := log.Write([]byte("the end")); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); len(got) > 3*keptLog || !strings.HasSuffix(got, "the end") || !strings.HasPrefix(got, "[...]") {
		t.Errorf("%d bytes kept", len(got))
	}
}

func TestTollkeeper_StartReportsWhyItFailed(t *testing.T) {
	script := filepath.Join(t.TempDir(), "tollkeeper")
	tries := filepath.Join(t.TempDir(), "tries")
	for said, want := range map[string]int{"bind: address already in use": attempts, "the policy is broken": 1} {
		text := "#!/bin/sh\necho try >>" + tries + "\necho '" + said + "' >&2\nexit 1\n"
		if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := StartTollkeeper(t.Context(), TollkeeperOptions{Binary: script})
		if err == nil || want == 1 && !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v", said, err)
		}
		counted, err := os.ReadFile(tries)
		if n := strings.Count(string(counted), "try"); err != nil || n != want {
			t.Errorf("%s: started %d times, want %d (%v)", said, n, want, err)
		}
		if err := os.Remove(tries); err != nil {
			t.Fatal(err)
		}
	}
}
