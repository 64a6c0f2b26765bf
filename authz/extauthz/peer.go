package extauthz

import "github.com/tollkeeper-authz/tollkeeper/authz"

// peerMemory is what a peer needs that has an IP address.
type peerMemory struct {
	peer    authz.Peer
	address authz.Address
	socket  authz.SocketAddress
}

func (d *decoder) peer(m *peerMemory, s string) {
	p := &m.peer
	for s != "" {
		var f field
		switch f, s = d.cut(s); f.tag {
		case 1<<3 | aText:
			d.address(m, f.text)
		case 2<<3 | aText:
			p.Service = d.utf8(f.text)
		case 3<<3 | aText:
			p.Labels = d.put(p.Labels, f.text)
		case 4<<3 | aText:
			p.Principal = d.utf8(f.text)
		case 5<<3 | aText:
			p.Certificate = d.utf8(f.text)
		}
	}
}

// address reads an address, which is of one kind: one of another kind replaces it, one of the same is read over it.
func (d *decoder) address(m *peerMemory, s string) {
	a := &m.address
	m.peer.Address = a
	for s != "" {
		var f field
		switch f, s = d.cut(s); f.tag {
		case 1<<3 | aText:
			if a.Socket == nil {
				m.socket = authz.SocketAddress{}
				*a = authz.Address{Socket: &m.socket}
			}
			d.socket(a.Socket, f.text)
		case 2<<3 | aText:
			if a.Pipe == nil {
				*a = authz.Address{Pipe: &authz.PipeAddress{}}
			}
			d.pipe(a.Pipe, f.text)
		case 3<<3 | aText:
			if a.Internal == nil {
				*a = authz.Address{Internal: &authz.InternalAddress{}}
			}
			d.internal(a.Internal, f.text)
		}
	}
}

// socket reads an IP address. Its port is a number or a name: the last that comes, as with the kinds of an address.
func (d *decoder) socket(a *authz.SocketAddress, s string) {
	for s != "" {
		var f field
		switch f, s = d.cut(s); f.tag {
		case 1<<3 | aNumber:
			a.Protocol = int32(f.number)
		case 2<<3 | aText:
			a.Address = d.utf8(f.text)
		case 3<<3 | aNumber:
			a.Port, a.HasPort, a.NamedPort, a.HasNamedPort = uint32(f.number), true, "", false
		case 4<<3 | aText:
			a.Port, a.HasPort, a.NamedPort, a.HasNamedPort = 0, false, d.utf8(f.text), true
		case 5<<3 | aText:
			a.ResolverName = d.utf8(f.text)
		case 6<<3 | aNumber:
			a.IPv4Compat = f.number != 0
		case 7<<3 | aText: // a network namespace, which nobody asks for
			d.utf8(f.text)
		}
	}
}

func (d *decoder) pipe(a *authz.PipeAddress, s string) {
	for s != "" {
		var f field
		switch f, s = d.cut(s); f.tag {
		case 1<<3 | aText:
			a.Path = d.utf8(f.text)
		case 2<<3 | aNumber:
			a.Mode = uint32(f.number)
		}
	}
}

func (d *decoder) internal(a *authz.InternalAddress, s string) {
	for s != "" {
		var f field
		switch f, s = d.cut(s); f.tag {
		case 1<<3 | aText:
			a.ServerListenerName, a.HasListenerName = d.utf8(f.text), true
		case 2<<3 | aText:
			a.EndpointID = d.utf8(f.text)
		}
	}
}
