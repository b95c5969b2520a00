"""A mail server: smtpd.py starttls|tls|plain CERT KEY [PASSWORD]. Prints its port, then each message as a line of JSON."""

import asyncio
import json
import ssl
import sys
from base64 import b64encode

from aiosmtpd.smtp import SMTP, AuthResult

mode, cert, key, *password = sys.argv[1:]
busy = set()


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("unknown"):
            return "550 5.1.1 no such user"
        if address.startswith("busy") and address not in busy:
            busy.add(address)
            return "451 4.2.1 try again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if any(to.startswith("full") for to in envelope.rcpt_tos):
            return "552 5.2.2 mailbox full"
        print(json.dumps({
            "from": envelope.mail_from, "to": envelope.rcpt_tos, "tls": session.ssl is not None or mode == "tls",
            "user": session.auth_data, "content": b64encode(envelope.content).decode(),
        }), flush=True)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    ok = password and data.password.decode() == password[0]
    return AuthResult(success=bool(ok), handled=False, auth_data=data.login.decode())


async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)

    def protocol():
        return SMTP(
            Handler(), hostname="localhost", enable_SMTPUTF8=True, authenticator=authenticate,
            auth_required=bool(password), auth_require_tls=mode == "starttls",
            tls_context=context if mode == "starttls" else None, require_starttls=mode == "starttls",
        )

    server = await asyncio.get_running_loop().create_server(
        protocol, "127.0.0.1", 0, ssl=context if mode == "tls" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
