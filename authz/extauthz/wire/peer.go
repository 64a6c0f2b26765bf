package wire

import "github.com/tollkeeper-authz/tollkeeper/authz"

// peerMemory holds the parts of a peer with an IP address in one allocation.
type peerMemory struct {
	peer    authz.Peer
	address authz.Address
	socket  authz.SocketAddress
}

func (d *decoder) peer(m *peerMemory, s string) {
	p := &m.peer
	for s != "" {
		var f field
		switch f, s = d.next(s); f.tag {
		case peerAddress:
			d.address(m, f.text)
		case peerService:
			p.Service = d.utf8(f.text)
		case peerLabels:
			p.Labels = d.put(p.Labels, f.text)
		case peerPrincipal:
			p.Principal = d.utf8(f.text)
		case peerCertificate:
			p.Certificate = d.utf8(f.text)
		}
	}
}

// address reads an address. If another address of the same kind follows, it is merged; one of another kind replaces it.
func (d *decoder) address(m *peerMemory, s string) {
	a := &m.address
	m.peer.Address = a
	for s != "" {
		var f field
		switch f, s = d.next(s); f.tag {
		case addressSocket:
			if a.Socket == nil {
				m.socket = authz.SocketAddress{}
				*a = authz.Address{Socket: &m.socket}
			}
			d.socket(a.Socket, f.text)
		case addressPipe:
			if a.Pipe == nil {
				*a = authz.Address{Pipe: &authz.PipeAddress{}}
			}
			d.pipe(a.Pipe, f.text)
		case addressInternal:
			if a.Internal == nil {
				*a = authz.Address{Internal: &authz.InternalAddress{}}
			}
			d.internal(a.Internal, f.text)
		}
	}
}

// socket reads an IP address and a port. The port is a number or a name, the last one counts.
func (d *decoder) socket(a *authz.SocketAddress, s string) {
	for s != "" {
		var f field
		switch f, s = d.next(s); f.tag {
		case socketProtocol:
			a.Protocol = int32(f.number)
		case socketAddress:
			a.Address = d.utf8(f.text)
		case socketPort:
			a.Port, a.HasPort, a.NamedPort, a.HasNamedPort = uint32(f.number), true, "", false
		case socketNamedPort:
			a.Port, a.HasPort, a.NamedPort, a.HasNamedPort = 0, false, d.utf8(f.text), true
		case socketResolverName:
			a.ResolverName = d.utf8(f.text)
		case socketIPv4Compat:
			a.IPv4Compat = f.number != 0
		case socketNetworkNamespace: // no policy sees it, but it must be UTF-8
			d.utf8(f.text)
		}
	}
}

func (d *decoder) pipe(a *authz.PipeAddress, s string) {
	for s != "" {
		var f field
		switch f, s = d.next(s); f.tag {
		case pipePath:
			a.Path = d.utf8(f.text)
		case pipeMode:
			a.Mode = uint32(f.number)
		}
	}
}

func (d *decoder) internal(a *authz.InternalAddress, s string) {
	for s != "" {
		var f field
		switch f, s = d.next(s); f.tag {
		case internalServerListenerName:
			a.ServerListenerName, a.HasListenerName = d.utf8(f.text), true
		case internalEndpointID:
			a.EndpointID = d.utf8(f.text)
		}
	}
}
