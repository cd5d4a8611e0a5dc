/* eth0, whose configuration goes with its driver. */
#include "rebind.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define DISCARD_PORT	9

static struct sockaddr_in address, netmask, peer;

void network_configure(char **arguments)
{
	const char *own = arguments[0], *other = own ? arguments[1] : NULL;
	char ip[16];
	unsigned bits;

	errno = EINVAL;
	if (!own || sscanf(own, "%15[0-9.]/%u", ip, &bits) != 2 || bits < 1 || bits > 32 ||
	    !inet_aton(ip, &address.sin_addr))
		fail("eth0's address");
	if (!other || !inet_aton(other, &peer.sin_addr))
		fail("the peer's address");
	netmask.sin_addr.s_addr = htonl(~0u << (32 - bits));
	address.sin_family = netmask.sin_family = peer.sin_family = AF_INET;
	peer.sin_port = htons(DISCARD_PORT);
}

void network_work(void)
{
	static const uint8_t datagram[1400];
	int udp = must(socket(AF_INET, SOCK_DGRAM, 0), "UDP");

	/* Not connected: that nobody listens there is no failure. */
	while (sendto(udp, datagram, sizeof(datagram), 0, (struct sockaddr *)&peer,
		      sizeof(peer)) > 0)
		sem_post(&begun);
	close(udp);
}

static void set_interface(int udp, unsigned long request, const struct sockaddr_in *value)
{
	struct ifreq interface = { .ifr_name = "eth0" };

	memcpy(&interface.ifr_addr, value, sizeof(*value));
	must(ioctl(udp, request, &interface), "eth0's address");
}

static void bring_up(void)
{
	struct ifreq interface = { .ifr_name = "eth0" };
	int udp = must(socket(AF_INET, SOCK_DGRAM, 0), "UDP");

	set_interface(udp, SIOCSIFADDR, &address);
	set_interface(udp, SIOCSIFNETMASK, &netmask);
	must(ioctl(udp, SIOCGIFFLAGS, &interface), "eth0's state");
	interface.ifr_flags |= IFF_UP;
	must(ioctl(udp, SIOCSIFFLAGS, &interface), "eth0's state");
	close(udp);
}

/* RFC 1071. */
static uint16_t internet_checksum(const void *data, size_t size)
{
	const uint16_t *words = data;
	uint32_t sum = 0;

	for (size_t i = 0; i < size / 2; i++)
		sum += words[i];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* One echo request and its reply. */
static void ping(void)
{
	struct icmphdr request = { .type = ICMP_ECHO, .un.echo.id = random() };
	struct {
		struct iphdr ip;	/* without options, as nobody asks for any */
		struct icmphdr icmp;
		uint8_t rest[1500];
	} packet;
	int icmp = must(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), "ICMP");

	request.checksum = internet_checksum(&request, sizeof(request));
	must(sendto(icmp, &request, sizeof(request), 0, (struct sockaddr *)&peer, sizeof(peer)),
	     "echo request");
	do {
		memset(&packet, 0, sizeof(packet));
		must(recv(icmp, &packet, sizeof(packet), 0), "echo reply");
	} while (packet.icmp.type != ICMP_ECHOREPLY ||
		 packet.icmp.un.echo.id != request.un.echo.id);
	close(icmp);
}

void network_check(void)
{
	bring_up();
	ping();
}
