package model

import (
	"cmp"
	"errors"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// Own is a configuration of Tollkeeper itself.
type Own struct {
	source.Location
	Config config.Config
	Fault  *Fault // why it cannot be used
	State  *State // nil if it is for another machine

	namespace, configMap string                     // of the ConfigMap that holds it, "" for a file
	pod                  source.Location            // the template of pods that are configured only by environment
	variables            map[string]source.Location // of the pods, which override the file
}

// State is the state of the machine that a configuration is for.
type State struct {
	Faults       []StartFault // except faults of the policies and of the data directory
	PolicyFaults []string     // why the policies cannot be used, one a line
	PolicyNotes  []string     // faults that only the strict check finds
	VerdictCache string       // "on", or "off" and why
	Evaluator    string       // of the policies: "compiled", or OPA's and why
	FailedTests  []string     // of the policies
	MissingPlans []string     // plans that are used but that the policies do not define, one a line
	PolicyKept   string       // when the policies that a start falls back to were saved, "" if there are none
	Data         DataDir
	TLS          TLSFiles // if empty, the file names them
}

// DataDir is the state of a data directory.
type DataDir struct {
	Fault   string // why it cannot be used, "" if it can
	Shared  bool   // other users of the machine may read its files
	Running bool   // a server has it open
	Damage  string // what is wrong with the file in it
	Free    uint64 // bytes, 0 if unknown
}

// StartFault is a fault that keeps the server from starting, in the server's own words.
type StartFault struct {
	Field string // of the configuration, such as tokens.issuers[0]
	Text  string
	File  bool // a file that the field names cannot be read
}

// TLSFiles are the files that protect the gRPC port.
type TLSFiles struct{ Cert, Key, ClientCA string }

// ownSource is a configuration of Tollkeeper in a file.
type ownSource struct {
	doc                  *source.Document
	namespace, configMap string
	loaded               *Own // the configuration of this machine, if it is already loaded
}

// OwnFile returns the loaded configuration of this machine with the state of the machine. err is the error of loading it.
func OwnFile(name string, raw []byte, cfg config.Config, err error, state *State) *File {
	f := &File{Name: cmp.Or(name, "(defaults and environment)"), kinds: []string{ownKind}}
	doc := &source.Document{File: f.Name}
	if docs, err := source.Parse(f.Name, raw); err == nil && len(docs) > 0 {
		doc = docs[0]
	}
	o := &Own{Location: doc.Root().Called("configuration"), Config: cfg, State: state}
	if err != nil {
		o.Config, o.State = config.Default(), nil
		o.fail(err)
	}
	f.own = append(f.own, ownSource{loaded: o})
	return f
}

// read reads a configuration for this or another machine.
func (s ownSource) read() *Own {
	if s.loaded != nil {
		o := *s.loaded
		return &o
	}
	o := &Own{Location: s.doc.Root().Called("configuration"), Config: config.Default(), namespace: s.namespace, configMap: s.configMap}
	if s.doc.Raw == nil {
		o.fail(errors.New("the file has other documents too, which the server does not accept"))
		return o
	}
	o.load()
	return o
}

// load reads the file and the variables that override it.
func (o *Own) load() {
	environment := make(map[string]string, len(o.variables))
	for name, value := range o.variables {
		environment[name] = value.Text()
	}
	raw := o.Document().Raw
	if o.IsEnvironment() {
		raw = nil
	}
	o.Fault = nil
	cfg, err := config.Read(o.Document().File, raw, environment)
	if err != nil {
		o.Config = config.Default()
		o.fail(err)
		return
	}
	o.Config = cfg
}

// IsEnvironment reports whether only the environment of pods is known, and no file.
func (o *Own) IsEnvironment() bool { return o.pod.Exists() }

// fail sets the fault from an error that begins with its position.
func (o *Own) fail(err error) {
	at := o.Location
	text := strings.TrimPrefix(err.Error(), o.Document().File+":")
	if name, _, _ := strings.Cut(text, ":"); o.variables[name].Exists() {
		at = o.variables[name]
	}
	if line, rest, ok := strings.Cut(text, ":"); ok {
		if n, err := strconv.Atoi(line); err == nil && n > 0 {
			_, text, _ = strings.Cut(rest, ": ") // the column
			at = at.OnLine(n)
		}
	}
	o.Fault = &Fault{Location: at, Text: strings.TrimSpace(text)}
}

// variable is the location of a pod variable that sets a field.
func (o *Own) variable(names ...string) (source.Location, bool) {
	l, ok := o.variables[config.EnvPrefix+strings.ToUpper(strings.Join(names, "_"))]
	return l, ok
}

// At is the location where a field is set: in the file, or in a variable of the pods.
func (o *Own) At(path string) source.Location {
	if l, ok := o.variable(strings.Split(path, ".")...); ok {
		return l
	}
	return o.Location.At(path)
}

var indexed = regexp.MustCompile(`^(\w+)\[(\d+)\]$`)

// Field is At for a path with indexes, such as tokens.issuers[0].
func (o *Own) Field(path string) source.Location {
	if !strings.Contains(path, "[") {
		return o.At(path)
	}
	at := o.Location
	for name := range strings.SplitSeq(path, ".") {
		if m := indexed.FindStringSubmatch(name); m != nil {
			i, _ := strconv.Atoi(m[2])
			at = at.At(m[1]).Index(i)
			continue
		}
		at = at.At(name)
	}
	return at
}

// TLSFiles are the files that the configuration names, or its environment.
func (o *Own) TLSFiles() TLSFiles {
	if o.State != nil && o.State.TLS != (TLSFiles{}) {
		return o.State.TLS
	}
	return TLSFiles{Cert: o.At("tls.cert_file").Text(), Key: o.At("tls.key_file").Text(), ClientCA: o.At("tls.client_ca_file").Text()}
}

// GRPCPort is the port for checks.
func (o *Own) GRPCPort() string {
	_, port, _ := net.SplitHostPort(o.Config.Listen.GRPC)
	return port
}

// isOwn reports whether a document looks like a configuration of Tollkeeper.
func isOwn(at source.Location) bool {
	keys := at.Keys()
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
