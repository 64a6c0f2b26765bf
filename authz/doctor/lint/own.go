package lint

import (
	"cmp"
	"errors"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
)

// The rules of this file look at Tollkeeper's own configuration, and at what it names on this machine.

// Own is a configuration of Tollkeeper.
type Own struct {
	spot
	Config config.Config
	fault  *Finding // why it cannot be used
	state  *State   // nil if it is for another machine
	// namespace is that of the ConfigMap in which it stands, "" for a file by itself.
	namespace, configMap string
	pod                  spot            // whose environment is all there is of it
	variables            map[string]spot // that count more than the file
}

// State is what was seen on the machine that a configuration is for.
type State struct {
	Faults       []StartFault // but for those of the policies and of the data directory
	PolicyFaults []string     // why the policies cannot be used, one a line
	PolicyNotes  []string     // what a stricter check than the server's says of them
	Memo         string       // whether verdicts are remembered
	FailedTests  []string     // of the policies
	MissingPlans []string     // plans that are used, and which the policies do not have, one a line
	PolicyKept   string       // when the policies were kept that a start goes on with, "" for none
	Data         DataDir
	TLS          TLSFiles // empty: those that the file names
}

// DataDir is what was seen of a data directory.
type DataDir struct {
	Fault   string // why it cannot be used, "" if it can
	Shared  bool   // others on the machine may read what is in it
	Running bool   // a server has it
	Damage  string // what is wrong with the file in it
	Free    uint64 // bytes, 0 if unknown
}

// readOwn reads a configuration that stands in a file, for whichever machine it is.
func readOwn(doc *document) *Own {
	o := &Own{spot: doc.spot().called("configuration"), Config: config.Default()}
	if doc.raw == nil {
		o.fail(errors.New("it stands in a file with other documents, which the server does not take"))
		return o
	}
	o.read()
	return o
}

// read reads the file and what is set over it.
func (o *Own) read() {
	environment := make(map[string]string, len(o.variables))
	for name, value := range o.variables {
		environment[name] = value.text()
	}
	raw := o.doc.raw
	if o.pod.is {
		raw = nil
	}
	o.Config, o.fault = config.Default(), nil
	cfg, err := config.Read(o.doc.file, raw, environment)
	if err != nil {
		o.fail(err)
		return
	}
	o.Config = cfg
}

// at is where a field is set: in the file, or by a variable of the pods.
func (o *Own) at(names ...string) spot {
	if s, ok := o.variables[config.EnvPrefix+strings.ToUpper(strings.Join(names, "_"))]; ok {
		return s
	}
	return o.spot.at(names...)
}

// OwnFile is the configuration of this machine as it was loaded, with what was seen here. The error is that of loading it.
func OwnFile(name string, raw []byte, cfg config.Config, err error, state *State) *File {
	f := &File{Name: cmp.Or(name, "(defaults and environment)"), kinds: []string{"Tollkeeper configuration"}}
	doc := &document{file: f.Name, raw: raw}
	if docs, err := parse(raw); err == nil && len(docs) > 0 {
		doc.root = docs[0]
	}
	o := &Own{spot: doc.spot().called("configuration"), Config: cfg, state: state}
	if err != nil {
		o.Config, o.state = config.Default(), nil
		o.fail(err)
	}
	f.owns = append(f.owns, o)
	return f
}

// fail notes an error, which begins with its place.
func (o *Own) fail(err error) {
	f := o.says("")
	text := strings.TrimPrefix(err.Error(), o.doc.file+":")
	if name, _, _ := strings.Cut(text, ":"); o.variables[name].is {
		f = o.variables[name].says("")
	}
	if line, rest, ok := strings.Cut(text, ":"); ok && number(line) > 0 {
		_, text, _ = strings.Cut(rest, ": ") // the column
		f.Line = number(line)
		if !o.doc.textual {
			f.Line += o.doc.base
		}
	}
	f.Wrong = strings.TrimSpace(text)
	o.fault = &f
}

// byVariable reports whether the fault is in the environment.
func (o *Own) byVariable() bool {
	return strings.HasPrefix(o.fault.Wrong, config.EnvPrefix) || strings.HasPrefix(o.fault.Wrong, "environment:")
}

// isOwn reports whether a document looks like a configuration of Tollkeeper.
func isOwn(s spot) bool {
	keys := s.keys()
	return len(keys) > 0 && !slices.ContainsFunc(keys, func(k string) bool { return !slices.Contains(ownFields, k) })
}

// ownFields are the fields of a configuration.
var ownFields = func() (names []string) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[config.Config]()) {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && len(f.Index) == 1 {
			names = append(names, name)
		}
	}
	return names
}()

func ownUnreadable(in *Input, report func(Finding)) {
	for _, o := range in.owns {
		if o.fault != nil {
			report(*o.fault)
		}
	}
}

// ofHere calls f with the configurations of this machine.
func (in *Input) ofHere(f func(*Own, *State)) {
	for _, o := range in.owns {
		if o.state != nil {
			f(o, o.state)
		}
	}
}

func ownPolicies(in *Input, report func(Finding)) {
	in.ofHere(func(o *Own, s *State) {
		for _, fault := range s.PolicyFaults {
			if s.PolicyKept != "" {
				fault += " (a start goes on with the policies that were kept at " + s.PolicyKept + ")"
			}
			report(o.at("policy", "paths").says("%s", fault))
		}
	})
}

func ownPlans(in *Input, report func(Finding)) {
	in.ofHere(func(o *Own, s *State) {
		for _, plan := range s.MissingPlans {
			report(o.at("policy", "paths").says("%s", plan))
		}
	})
}

func ownStrict(in *Input, report func(Finding)) {
	in.ofHere(func(o *Own, s *State) {
		for _, note := range s.PolicyNotes {
			report(o.at("policy", "paths").says("%s", note))
		}
	})
}

func ownTests(in *Input, report func(Finding)) {
	in.ofHere(func(o *Own, s *State) {
		if len(s.FailedTests) > 0 {
			report(o.at("policy", "paths").says("tests of the policies fail: %s", some(s.FailedTests)))
		}
	})
}

func ownMemo(in *Input, report func(Finding)) {
	in.ofHere(func(o *Own, s *State) {
		if strings.HasPrefix(s.Memo, "off") {
			report(o.at("policy", "memo").says("the memo of verdicts is %s", s.Memo))
		}
	})
}

func ownData(in *Input, report func(Finding)) {
	in.ofHere(func(o *Own, s *State) {
		if s.Data.Fault != "" {
			report(o.at("data_dir").says("the data directory cannot be used: %s", s.Data.Fault))
		}
	})
}

func ownDamage(in *Input, report func(Finding)) {
	in.ofHere(func(o *Own, s *State) {
		if s.Data.Damage != "" {
			report(o.at("data_dir").says("the data file is damaged: %s", s.Data.Damage))
		}
	})
}

func ownRunning(in *Input, report func(Finding)) {
	in.ofHere(func(o *Own, s *State) {
		if s.Data.Running {
			report(o.at("data_dir").says("a server runs on %s, so that the data file was not looked at", o.Config.DataDir))
		}
	})
}

// lowDisk is the free space below which a disk is as good as full.
const lowDisk = 256 << 20

func ownDisk(in *Input, report func(Finding)) {
	in.ofHere(func(o *Own, s *State) {
		if s.Data.Free > 0 && s.Data.Free < lowDisk {
			report(o.at("data_dir").says("the disk of %s has %d MiB left", o.Config.DataDir, s.Data.Free>>20))
		}
	})
}

func ownShared(in *Input, report func(Finding)) {
	in.ofHere(func(o *Own, s *State) {
		if s.Data.Shared {
			report(o.at("data_dir").says("others on this machine may read the admin token or the data file in %s", o.Config.DataDir))
		}
	})
}

// exposed reports whether an address can be reached from other machines.
func exposed(address string) bool {
	if address == "" || strings.HasPrefix(address, "unix:") {
		return false
	}
	host, _, err := net.SplitHostPort(address)
	return err == nil && !loopback(host)
}

func ownAdmin(in *Input, report func(Finding)) {
	for _, o := range in.owns {
		if exposed(o.Config.Listen.Admin) {
			report(o.at("listen", "admin").says("the admin port listens on %s: whoever has the token, and sees it pass, rules keys and quotas", o.Config.Listen.Admin))
		}
	}
}

func ownClear(in *Input, report func(Finding)) {
	for _, o := range in.owns {
		if exposed(o.Config.Listen.GRPC) && in.tlsOf(o) == (TLSFiles{}) && !in.meshed(o) && o.fault == nil {
			f := o.at("listen", "grpc").says("checks come in on %s in the clear, and from anybody: who reaches it can try out keys and use up quotas", o.Config.Listen.GRPC)
			if in.fenced(o) {
				f = o.at("listen", "grpc").says("checks come in on %s in the clear: only a NetworkPolicy says from whom", o.Config.Listen.GRPC)
				f.Severity = Info
			}
			report(f)
		}
		if exposed(o.Config.Listen.Events) {
			f := o.at("listen", "events").says("revocations come in on %s in the clear, secrets of clients included", o.Config.Listen.Events)
			f.Remedy = "Listen on 127.0.0.1 and put a proxy with TLS before it."
			report(f)
		}
	}
}

func ownPepper(in *Input, report func(Finding)) {
	for _, o := range in.owns {
		if o.fault == nil && o.Config.Keys.PepperFile == "" && !o.pod.is { // else it may be in a file that is not here
			report(o.at("keys", "pepper_file").says("keys are hashed without a pepper: whoever gets a copy of the data can test whether a key is in it"))
		}
	}
}

func ownHTTP(in *Input, report func(Finding)) {
	for _, o := range in.owns {
		t := &o.Config.Tokens
		check := func(at spot, text string) {
			u, err := url.Parse(text)
			if err == nil && u.Scheme == "http" && !loopback(u.Hostname()) {
				report(at.says("%s is fetched without TLS: whoever is in between decides whose tokens are good", text))
			}
		}
		for i, x := range t.Issuers {
			at := o.at("tokens", "issuers").index(i)
			if x.Discovery {
				check(at.at("issuer"), x.Issuer)
			}
			check(at.at("jwks_url"), x.JWKSURL)
		}
		check(o.at("tokens", "introspection", "url"), t.Introspection.URL)
	}
}

func ownDryRun(in *Input, report func(Finding)) {
	for _, o := range in.owns {
		if o.Config.Request.DryRun {
			report(o.at("request", "dry_run").says("denials are only noted: every request that can be understood passes"))
		}
	}
}

func ownMemory(in *Input, report func(Finding)) {
	for _, o := range in.owns {
		if o.Config.Store == "memory" {
			report(o.at("store").says("keys, revocations and quotas are lost when the server ends"))
		}
	}
}

// impatient: Envoy gives up before Tollkeeper does.
func impatient(in *Input, report func(Finding)) {
	for _, o := range in.owns {
		own := o.Config.Request.Timeout.Duration
		say := func(at spot, wait time.Duration) {
			if wait > 0 && wait <= own {
				report(at.says("Envoy waits %v for a check and Tollkeeper takes up to %v: callers get an error without a reason where they would get decision_timeout", wait, own))
			}
		}
		for _, a := range in.asks() {
			wait := 200 * time.Millisecond // Envoy's default
			if t := a.authz.GetGrpcService().GetTimeout(); t != nil {
				wait = t.AsDuration()
			}
			say(a.at("grpc_service", "timeout"), wait)
		}
		for _, p := range in.providers() {
			wait, _ := p.timeout()
			say(p.grpc.at("timeout"), wait)
		}
		for _, p := range in.asking() {
			say(p.extAuth("timeout"), p.checkTimeout())
		}
	}
}
