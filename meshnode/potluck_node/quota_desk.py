"""What clients of this node ask about quotas, and have it sign."""

from __future__ import annotations

import secrets

from potluck import wire
from potluck.errors import InvalidError, LedgerError, RefusedError
from potluck.wire import accounts as messages
from potluck.wire.control import Done
from potluck_ledger.bodies import Body
from potluck_ledger.entries import NONCE_BYTES, NOTE_MAX, Grant, Membership, Rule, Transfer, cut, sign
from potluck_ledger.envelope import EnvelopeError
from potluck_ledger.journal import JournalError
from potluck_ledger.keys import PrivateKey
from potluck_ledger.quotas import Standing
from potluck_ledger.usage import HOUR_US
from potluck_node.clock import Clock
from potluck_node.lab import Lab


class QuotaDesk:
    """Signs with the node's own key: so it is this machine's owner who grants."""

    def __init__(self, lab: Lab, key: PrivateKey, mesh: str, clock: Clock) -> None:
        self._lab, self._key, self._mesh, self._clock = lab, key, mesh, clock

    def answer(self, question: messages.QuotaQuestion) -> wire.Message:
        """Raises `InvalidError`, `RefusedError`, `LedgerError`."""
        if not self._lab.admins:
            raise RefusedError(
                "This node belongs to no lab: nothing is granted or refused here.",
                fix="Name the admins in its setting `ledger_admins`, and start it again.",
            )
        if isinstance(question, messages.AskQuotas):
            return self._told(question.question)
        self._keep(self._body(question))
        return Done(question.question)

    def _body(self, question: messages.GrantTime | messages.SetMember | messages.GiveTime | messages.SetRule) -> Body:
        now_us, us, nonce = self._clock.now_us(), self._key.peer, secrets.token_bytes(NONCE_BYTES)
        if isinstance(question, messages.GiveTime):
            return Transfer(us, question.taker, question.lease_us, now_us, nonce, cut(question.note, NOTE_MAX))
        if us not in self._lab.admins:
            raise RefusedError(
                "This node may grant nothing.",
                why=f"{us} is none of the admins that its setting `ledger_admins` names",
                fix="Ask one of them, or name it there on every node of the lab.",
            )
        if isinstance(question, messages.SetMember):
            until_us = max(now_us, question.expires_us)
            return Membership(us, self._mesh, question.group, question.member, now_us, until_us, nonce)
        if isinstance(question, messages.SetRule):
            return Rule(
                us, self._mesh, question.what, question.scope, question.name, question.machine, question.level,
                question.cpu_milli, question.gpus, now_us, question.starts_us or now_us, question.expires_us, nonce,
            )  # fmt: skip
        since_us = self._starts(question, now_us)
        return Grant(
            us, self._mesh, question.scope, question.name, question.gpu_class, question.lease_us, question.period_us,
            since_us, question.expires_us, nonce,
        )  # fmt: skip

    def _starts(self, question: messages.GrantTime, now_us: int) -> int:
        """With the hour, as use is counted; after the grant that it replaces."""
        hour_us = now_us - now_us % HOUR_US
        key = (question.scope, question.name, question.gpu_class)
        same = [
            grant.starts_us
            for grant in self._lab.quotas.grants()
            if (grant.scope, grant.name, grant.gpu_class) == key and grant.starts_us >= hour_us
        ]
        return max([hour_us, *(each + 1 for each in same)])

    def _keep(self, body: Body) -> None:
        try:
            self._lab.sign(sign(self._key, body).encode(), self._clock.now_us())
        except EnvelopeError as error:
            raise InvalidError("This cannot be signed.", why=str(error)) from None
        except JournalError as error:
            raise LedgerError("This is not in the journal, and so counts nowhere.", why=str(error)) from None

    def _told(self, question: int) -> messages.QuotasTold:
        now_us = self._clock.now_us()
        self._lab.catch_up()
        quotas = self._lab.quotas
        mine = {each.grant for each in quotas.of(self._key.peer, now_us)}
        lines = tuple(_line(each, each.grant in mine) for each in quotas.standings(now_us))
        groups = tuple((name, tuple(members)) for name, members in quotas.groups(now_us).items())
        rules = tuple(_rule_line(each) for each in self._lab.house.rules() if now_us < each.expires_us)
        return messages.QuotasTold(question, tuple(sorted(self._lab.admins)), lines, groups, rules)


def _rule_line(rule: Rule) -> messages.RuleLine:
    return messages.RuleLine(
        rule.what, rule.scope, rule.name, rule.machine, rule.level, rule.cpu_milli, rule.gpus, rule.starts_us,
        rule.expires_us, rule.admin,
    )  # fmt: skip


def _line(standing: Standing, is_mine: bool) -> messages.QuotaLine:
    grant = standing.grant
    return messages.QuotaLine(
        grant.scope, grant.name, grant.gpu_class, standing.granted_us, standing.used_us, standing.since_us,
        standing.until_us, grant.period_us, grant.expires_us, grant.admin, is_mine,
    )  # fmt: skip
