package rules

import (
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/source"
)

// This file has the rules about Tollkeeper's own configuration, for this or another machine.

var ownUnusable = rule.Rule{
	ID: "TK201", Severity: rule.Error, Since: since, Title: "Tollkeeper's configuration cannot be used.",
	Why:    "The server does not start with it.",
	Remedy: "Correct the field or the variable: authz/config/README.md says what each one means.",
	Checks: []rule.Check{
		func(in *model.Model, report rule.Report) {
			for _, o := range in.Own {
				if o.Fault != nil {
					report(rule.At(o.Fault.Location, "%s", o.Fault.Text))
				}
			}
		},
		wouldNotStart,
	},
}

// wouldNotStart reports faults that keep the server from starting, unless another rule reports them.
func wouldNotStart(in *model.Model, report rule.Report) {
	badCertificate := false
	for _, check := range loadCertificates {
		check(in, func(rule.Finding) { badCertificate = true })
	}
	for _, o := range in.Own {
		var faults []model.StartFault
		switch {
		case o.State != nil:
			faults = o.State.Faults
		case o.Fault == nil && in.Usable != nil:
			faults = in.Usable(&o.Config)
		}
		for _, f := range faults {
			isTLS := strings.HasPrefix(f.Field, "tls.")
			if f.File && !isTLS || isTLS && badCertificate {
				continue
			}
			report(rule.At(o.Field(f.Field), "%s", f.Text))
		}
	}
}

var ownDryRun = rule.Rule{
	ID: "TK205", Severity: rule.Warning, Since: since, Title: "The server is in dry run: it does not deny.",
	Why:    "Every well-formed request passes. Use it for trials, not in production.",
	Remedy: "Remove request.dry_run.",
	Checks: eachOwn(func(_ *model.Model, o *model.Own, report rule.Report) {
		if o.Config.Request.DryRun {
			report(rule.At(o.At("request.dry_run"), "denials are only logged: every well-formed request passes"))
		}
	}),
}

var ownMemory = rule.Rule{
	ID: "TK215", Severity: rule.Info, Since: since, Title: "Everything is kept in memory.",
	Why:    "Keys, revocations and quotas are lost when the server ends.",
	Remedy: "Set store: bolt, or a PostgreSQL database (store.postgres).",
	Checks: eachOwn(func(_ *model.Model, o *model.Own, report rule.Report) {
		if o.Config.Store.Kind == "memory" {
			report(rule.At(o.At("store"), "keys, revocations and quotas are lost when the server ends"))
		}
	}),
}

func eachOwn(check func(*model.Model, *model.Own, rule.Report)) []rule.Check {
	return each(func(in *model.Model) []*model.Own { return in.Own }, check)
}

// isExposed reports whether an address can be reached from other machines.
func isExposed(address string) bool {
	if address == "" || strings.HasPrefix(address, "unix:") {
		return false
	}
	host, _, err := net.SplitHostPort(address)
	return err == nil && !model.Loopback(host)
}

var ownAdmin = rule.Rule{
	ID: "TK230", Severity: rule.Warning, Since: since, Title: "The admin port can be reached from outside.",
	Why:    "It has no TLS: an attacker on the network can read the admin token.",
	Remedy: "Listen on 127.0.0.1.",
	Checks: eachOwn(func(_ *model.Model, o *model.Own, report rule.Report) {
		if admin := o.Config.Listen.Admin; isExposed(admin) {
			report(rule.At(o.At("listen.admin"), "the admin port listens on %s: an attacker on the network can read the token and change keys and quotas", admin))
		}
	}),
}

var ownClear = rule.Rule{
	ID: "TK231", Severity: rule.Warning, Since: since, Title: "A port without TLS can be reached from outside.",
	Why:    "An attacker on the network can read credentials, and any client can ask.",
	Remedy: "Listen on 127.0.0.1 or a socket, or set tls.cert_file, tls.key_file and tls.client_ca_file.",
	Checks: eachOwn(func(in *model.Model, o *model.Own, report rule.Report) {
		grpc, events := o.Config.Listen.GRPC, o.Config.Listen.Events
		if isExposed(grpc) && o.TLSFiles() == (model.TLSFiles{}) && !o.RequiresMTLS(in.Objects) && o.Fault == nil {
			found := rule.At(o.At("listen.grpc"), "checks come in on %s in the clear, and from any client: it can try out keys and use up quotas", grpc)
			if o.IsFenced(in.Objects) {
				found = rule.At(o.At("listen.grpc"), "checks come in on %s in the clear: only a NetworkPolicy restricts the clients", grpc).As(rule.Info)
			}
			report(found)
		}
		if isExposed(events) {
			report(rule.At(o.At("listen.events"), "revocations come in on %s in the clear, with the secrets of clients", events).
				FixedBy("Listen on 127.0.0.1 and put a proxy with TLS in front of it."))
		}
	}),
}

var ownPepper = rule.Rule{
	ID: "TK240", Severity: rule.Info, Since: since, Title: "Keys are hashed without a pepper.",
	Why:    "With a copy of the data file, an attacker can test guesses of imported keys. Keys that Tollkeeper makes cannot be guessed.",
	Remedy: "Set keys.pepper_file before the first key is made.",
	Checks: eachOwn(func(_ *model.Model, o *model.Own, report rule.Report) {
		if o.Fault == nil && o.Config.Keys.PepperFile == "" && !o.IsEnvironment() { // otherwise a file that we do not have may set it
			report(rule.At(o.At("keys.pepper_file"), "keys are hashed without a pepper: with a copy of the data file, an attacker can test guesses of keys"))
		}
	}),
}

var ownHTTP = rule.Rule{
	ID: "TK241", Severity: rule.Warning, Since: since, Title: "Signing keys or token states are fetched without TLS.",
	Why:    "An attacker on the network can make Tollkeeper accept any token.",
	Remedy: "Use an https:// URL.",
	Checks: eachOwn(func(_ *model.Model, o *model.Own, report rule.Report) {
		check := func(at source.Location, text string) {
			if u, err := url.Parse(text); err == nil && u.Scheme == "http" && !model.Loopback(u.Hostname()) {
				report(rule.At(at, "%s is fetched without TLS: an attacker on the network decides which tokens are valid", text))
			}
		}
		for i, x := range o.Config.Tokens.Issuers {
			at := o.At("tokens.issuers").Index(i)
			if x.Discovery {
				check(at.At("issuer"), x.Issuer)
			}
			check(at.At("jwks_url"), x.JWKSURL)
		}
		check(o.At("tokens.introspection.url"), o.Config.Tokens.Introspection.URL)
	}),
}

var ownFiles = rule.Rule{
	ID: "TK206", Severity: rule.Error, Since: since, Title: "A file that the configuration names cannot be read.",
	Why:    "The server does not start. If an issuer's keys are missing, it starts but refuses the issuer's tokens.",
	Remedy: "Correct the path, or let the server's user read the file.",
	Checks: onThisMachine(func(_ *model.Model, o *model.Own, s *model.State, report rule.Report) {
		for _, f := range s.Faults {
			if f.File && !strings.HasPrefix(f.Field, "tls.") {
				report(rule.At(o.Field(f.Field), "%s", f.Text))
			}
		}
		for i, x := range o.Config.Tokens.Issuers { // without these files the server starts, and waits for them
			if x.JWKSFile == "" {
				continue
			}
			f, err := os.Open(x.JWKSFile)
			if err != nil {
				report(rule.At(o.At("tokens.issuers").Index(i).At("jwks_file"), "%v", err))
				continue
			}
			_ = f.Close()
		}
	}),
}

func onThisMachine(check func(*model.Model, *model.Own, *model.State, rule.Report)) []rule.Check {
	return eachOwn(func(in *model.Model, o *model.Own, report rule.Report) {
		if o.State != nil {
			check(in, o, o.State, report)
		}
	})
}
