package tlsfiles

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/tlsfiles/tlstest"
)

const edge = "spiffe://cluster.local/ns/edge/sa/envoy"

// world has a server's files, the CA that issued them, the CA of the clients, and the log.
type world struct {
	t           *testing.T
	ours, edges *tlstest.CA
	files       tlstest.Files
	log         bytes.Buffer
	configs     map[*Files]*tls.Config // one for all connections, as in a server
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, ours: tlstest.NewCA(t), edges: tlstest.NewCA(t), configs: make(map[*Files]*tls.Config)}
	w.files = w.ours.Write(t, t.TempDir(), w.edges, time.Hour, "localhost")
	return w
}

func (w *world) options() Options {
	return Options{
		CertFile: w.files.Cert, KeyFile: w.files.Key, ClientCAFile: w.files.CA, Now: time.Now,
		Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	}
}

func (w *world) open(o Options) *Files {
	w.t.Helper()
	f, err := Open(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.configs[f] = f.Config()
	return f
}

// client returns a configuration that trusts the server and sends a certificate with those names, or none without names.
func (w *world) client(ca *tlstest.CA, names ...string) *tls.Config {
	w.t.Helper()
	c := &tls.Config{ServerName: "localhost", RootCAs: x509.NewCertPool(), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
	c.RootCAs.AppendCertsFromPEM(w.ours.PEM)
	if len(names) > 0 {
		pair, err := tls.X509KeyPair(ca.Issue(w.t, time.Hour, names...))
		if err != nil {
			w.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// link is both ends of an open connection.
type link struct {
	client, server *tls.Conn
}

// connect returns the error of the server's handshake.
func (w *world) connect(f *Files, client *tls.Config) (link, error) {
	w.t.Helper()
	a, b := net.Pipe()
	l := link{tls.Client(a, client), tls.Server(b, w.configs[f])}
	w.t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	_ = a.SetDeadline(time.Now().Add(10 * time.Second))
	_ = b.SetDeadline(time.Now().Add(10 * time.Second))
	done := make(chan error, 1)
	go func() {
		err := l.client.Handshake()
		if err == nil {
			_, err = l.client.Read(make([]byte, 1)) // an alert, or the server's byte
		}
		done <- err
	}()
	err := l.server.Handshake()
	if err == nil {
		_, err = l.server.Write([]byte{1})
	} else {
		go func() { _, _ = io.Copy(io.Discard, b) }() // what the client still sends
	}
	if clientErr := <-done; (clientErr == nil) != (err == nil) {
		w.t.Errorf("the server says %v and the client %v", err, clientErr)
	}
	return l, err
}

func TestFiles_WhichClientsConnect(t *testing.T) {
	w := newWorld(t)
	named := w.options()
	named.ClientNames = []string{edge, "envoy.edge.svc"}
	anyone := w.options()
	anyone.ClientCAFile = ""
	for name, c := range map[string]struct {
		o      Options
		client *tls.Config
		want   string // of the error; empty: it connects
	}{
		"by URI":                    {named, w.client(w.edges, edge), ""},
		"by DNS name":               {named, w.client(w.edges, "envoy.edge.svc"), ""},
		"by one name of several":    {named, w.client(w.edges, "other.edge.svc", "envoy.edge.svc"), ""},
		"no certificate":            {named, w.client(nil), "didn't provide a certificate"},
		"another CA's":              {named, w.client(w.ours, edge), "unknown authority"},
		"another name":              {named, w.client(w.edges, edge+"2", "x"), `none of tls.client_names, but "` + edge + `2", "x"`},
		"a prefix of a name":        {named, w.client(w.edges, "envoy.edge.svc.evil.com"), "none of tls.client_names"},
		"a wildcard":                {named, w.client(w.edges, "*.edge.svc"), "none of tls.client_names"},
		"no name":                   {named, w.client(w.edges, "10.0.0.1"), "no URI and no DNS name"},
		"any name of the right CA":  {w.options(), w.client(w.edges, "whoever"), ""},
		"none, where a CA is given": {w.options(), w.client(nil), "didn't provide a certificate"},
		"none, where none is asked": {anyone, w.client(nil), ""},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			_, err := w.connect(w.open(c.o), c.client)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestFiles_VersionsAndProtocol(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		min    string
		most   uint16
		refuse bool
	}{
		"1.3 by default":        {"", tls.VersionTLS13, false},
		"1.2 is too old":        {"", tls.VersionTLS12, true},
		"1.2 where it is asked": {"1.2", tls.VersionTLS12, false},
		"1.1 is too old":        {"1.2", tls.VersionTLS11, true},
	} {
		o := w.options()
		o.MinVersion = c.min
		client := w.client(w.edges, edge)
		client.MinVersion, client.MaxVersion = tls.VersionTLS10, c.most
		l, err := w.connect(w.open(o), client)
		if (err != nil) != c.refuse {
			t.Errorf("%s: %v", name, err)
		}
		if s := l.client.ConnectionState(); err == nil && (s.Version != c.most || s.NegotiatedProtocol != "h2") {
			t.Errorf("%s: %s, protocol %q", name, tls.VersionName(s.Version), s.NegotiatedProtocol)
		}
	}
}

// TestFiles_NoConnectionIsResumed: a client must send its certificate each time, because its name may have been removed from
// the list.
func TestFiles_NoConnectionIsResumed(t *testing.T) {
	w := newWorld(t)
	client := w.client(w.edges, edge)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	f := w.open(w.options())
	for range 3 {
		l, err := w.connect(f, client)
		if err != nil {
			t.Fatal(err)
		}
		if l.client.ConnectionState().DidResume {
			t.Error("the connection was resumed")
		}
	}
}

// TestOpen_Mistakes holds that each mistake is an error of one line that names the field.
func TestOpen_Mistakes(t *testing.T) {
	w := newWorld(t)
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	expired := w.ours.Write(t, t.TempDir(), w.edges, -time.Minute, "localhost")
	other := w.ours.Write(t, t.TempDir(), w.edges, time.Hour, "localhost")
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no certificate":      {func(o *Options) { o.CertFile = "" }, "cert_file: want the file"},
		"no key":              {func(o *Options) { o.KeyFile = "" }, "key_file: want the file"},
		"missing certificate": {func(o *Options) { o.CertFile = "nowhere" }, "cert_file: open nowhere: no such file"},
		"missing key":         {func(o *Options) { o.KeyFile = "nowhere" }, "key_file: open nowhere: no such file"},
		"missing CA":          {func(o *Options) { o.ClientCAFile = "nowhere" }, "client_ca_file: open nowhere: no such file"},
		"another's key":       {func(o *Options) { o.KeyFile = other.Key }, "key_file: " + other.Key + ": private key does not match public key"},
		"certificate as key":  {func(o *Options) { o.KeyFile = o.CertFile }, "key_file: "},
		"empty certificate":   {func(o *Options) { o.CertFile = file("c", "") }, "the file has no PEM certificate"},
		"empty CA":            {func(o *Options) { o.ClientCAFile = file("c", "") }, "client_ca_file: "},
		"key as CA":           {func(o *Options) { o.ClientCAFile = o.KeyFile }, "the file has no PEM certificate"},
		"broken CA":           {func(o *Options) { o.ClientCAFile = file("c", strings.Replace(string(w.edges.PEM), "MII", "MIJ", 1)) }, "certificate 1: "},
		"a broken CA beside a good one": {func(o *Options) {
			o.ClientCAFile = file("c", string(w.edges.PEM)+strings.Replace(string(w.ours.PEM), "MII", "!!!", 1))
		}, "1 of its 2 certificates are damaged"},
		"expired":                {func(o *Options) { o.CertFile, o.KeyFile = expired.Cert, expired.Key }, "the certificate expired on "},
		"not yet valid":          {func(o *Options) { o.Now = func() time.Time { return time.Now().Add(-48 * time.Hour) } }, "valid only from "},
		"expired CA":             {func(o *Options) { o.ClientCAFile = expired.Cert }, "client_ca_file: " + expired.Cert + ": the certificate expired on "},
		"names without CA":       {func(o *Options) { o.ClientCAFile, o.ClientNames = "", []string{edge} }, "client_names: "},
		"a pattern":              {func(o *Options) { o.ClientNames = []string{"*.edge.svc"} }, `client_names: "*.edge.svc": want whole names`},
		"an unknown version":     {func(o *Options) { o.MinVersion = "1.1" }, `min_version: "1.1": want 1.3 or 1.2`},
		"a version by full name": {func(o *Options) { o.MinVersion = "TLSv1_3" }, "want 1.3 or 1.2"},
	} {
		o := w.options()
		c.change(&o)
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v\nwant one line with %q", name, err, c.want)
		}
	}
}

func TestOpen_WarnsOfAKeyThatOthersCanRead(t *testing.T) {
	w := newWorld(t)
	w.open(w.options())
	if w.log.Len() > 0 {
		t.Errorf("a private key: %s", w.log.String())
	}
	if err := os.Chmod(w.files.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	w.open(w.options())
	if !strings.Contains(w.log.String(), "can be read by every user") {
		t.Errorf("logged %q", w.log.String())
	}
}

func TestPoll_NewFilesAreUsedAndOpenConnectionsStay(t *testing.T) {
	w := newWorld(t)
	volume := &tlstest.Volume{Dir: t.TempDir()}
	put := func(ca *tlstest.CA, life time.Duration) {
		cert, key := w.ours.Issue(t, life, "localhost")
		volume.Put(t, map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": ca.PEM})
	}
	put(w.edges, time.Hour)
	o := w.options()
	o.CertFile, o.KeyFile, o.ClientCAFile = filepath.Join(volume.Dir, "tls.crt"), filepath.Join(volume.Dir, "tls.key"), filepath.Join(volume.Dir, "ca.crt")
	f := w.open(o)
	old := w.client(w.edges, edge)
	open, err := w.connect(f, old)
	if err != nil {
		t.Fatal(err)
	}
	ended := f.Status().CertificateEnds

	next := tlstest.NewCA(t)
	put(next, 2*time.Hour)
	f.Poll()
	if s := f.Status(); s.Reloads != 1 || s.Faults != 0 || s.Fault != "" || !s.CertificateEnds.After(ended.Add(50*time.Minute)) {
		t.Errorf("after the change: %+v", s)
	}
	if _, err := w.connect(f, old); err == nil {
		t.Error("a client of the removed CA connected")
	}
	if l, err := w.connect(f, w.client(next, edge)); err != nil || !l.client.ConnectionState().PeerCertificates[0].NotAfter.After(ended.Add(50*time.Minute)) {
		t.Errorf("with the new files: %v", err)
	}
	go func() { _, _ = open.server.Write([]byte("still here")) }()
	if _, err := io.ReadFull(open.client, make([]byte, 10)); err != nil {
		t.Errorf("the open connection: %v", err)
	}
	f.Poll()
	if s := f.Status(); s.Reloads != 1 {
		t.Errorf("files that had not changed were loaded: %+v", s)
	}
}

func TestPoll_BrokenFilesAreReportedOnceAndTheOldOnesStay(t *testing.T) {
	w := newWorld(t)
	f := w.open(w.options())
	client := w.client(w.edges, edge)
	good, err := os.ReadFile(w.files.Key)
	if err != nil {
		t.Fatal(err)
	}
	for n, breakIt := range []func() error{
		func() error { return os.WriteFile(w.files.Key, []byte("half a k"), 0o600) },
		func() error { return os.Remove(w.files.Key) },
		func() error {
			return errors.Join(os.WriteFile(w.files.Key, good, 0o600), os.WriteFile(w.files.CA, nil, 0o600))
		},
	} {
		if err := breakIt(); err != nil {
			t.Fatal(err)
		}
		f.Poll() // the file may be half written
		if s := f.Status(); s.Faults != uint64(n) {
			t.Errorf("reported at the first Poll: %+v", s)
		}
		for range 3 {
			f.Poll()
		}
		if s := f.Status(); s.Faults != uint64(n+1) || s.Fault == "" || s.Reloads != 0 {
			t.Errorf("fault %d: %+v", n+1, s)
		}
		if got := strings.Count(w.log.String(), "not reloaded"); got != n+1 {
			t.Errorf("fault %d was logged %d times: %s", n+1, got, w.log.String())
		}
		if _, err := w.connect(f, client); err != nil {
			t.Errorf("with the old files: %v", err)
		}
	}
	if err := os.WriteFile(w.files.CA, w.edges.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	f.Poll()
	if s := f.Status(); s.Fault != "" || s.Reloads != 1 {
		t.Errorf("repaired: %+v", s)
	}
}

// TestPoll_CertificateThatIsNotValidYet: the issuer's clock may be ahead of ours.
func TestPoll_CertificateThatIsNotValidYet(t *testing.T) {
	w := newWorld(t)
	o, late := w.options(), time.Duration(0)
	o.Now = func() time.Time { return time.Now().Add(late) }
	f := w.open(o)
	late = -48 * time.Hour
	_ = w.ours.Write(t, w.files.Dir, w.edges, time.Hour, "localhost")
	for range 5 {
		f.Poll()
	}
	if s := f.Status(); s.Faults != 1 || !strings.Contains(s.Fault, "valid only from") || s.Reloads != 0 {
		t.Errorf("too early: %+v", s)
	}
	if n := strings.Count(w.log.String(), "not reloaded"); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
	late = 0
	f.Poll()
	if s := f.Status(); s.Fault != "" || s.Reloads != 1 {
		t.Errorf("in time: %+v", s)
	}
}

// TestPoll_FilesWrittenOneByOne: certificate and key do not match until both are written.
func TestPoll_FilesWrittenOneByOne(t *testing.T) {
	w := newWorld(t)
	f := w.open(w.options())
	cert, key := w.ours.Issue(t, 3*time.Hour, "localhost")
	for path, text := range map[string][]byte{w.files.Cert: cert, w.files.Key: key} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		f.Poll()
	}
	if s := f.Status(); s.Faults != 0 || s.Reloads != 1 {
		t.Errorf("%+v, logged %s", s, w.log.String())
	}
}
